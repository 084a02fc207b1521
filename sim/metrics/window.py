"""The measurement window: what of a run counts, without its warm-up and its cool-down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


class Interval(NamedTuple):
    """The requests that count, bool (n,), and the interval [from_s, until_s) of the run in which they arrived."""

    counted: NDArray[np.bool_]
    from_s: float
    until_s: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.until_s - self.from_s


@dataclass(kw_only=True, slots=True)
class Window:
    """Which requests count: those that arrive behind the warm-up and before the cool-down.

    A request counts by its arrival, so long and short ones count alike, and those that arrive in the cool-down keep the
    load up until the last counted one has finished. Each end is cut by time or by requests.

    Attributes:
        warm_up_s: seconds after the first arrival that do not count, >= 0.
        warm_up_requests: requests that do not count, in order of arrival, >= 0.
        cool_down_s: seconds up to the last arrival that do not count, >= 0.
        cool_down_requests: the last so many requests do not count, >= 0.
    """

    warm_up_s: float = 0.0
    warm_up_requests: int = 0
    cool_down_s: float = 0.0
    cool_down_requests: int = 0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"measure.window.{name} must be finite and >= 0, got {getattr(self, name)}")
        for end in ("warm_up", "cool_down"):
            if getattr(self, f"{end}_s") and getattr(self, f"{end}_requests"):
                raise ValueError(
                    f"measure.window.{end}_s and {end}_requests exclude each other, got "
                    f"{getattr(self, f'{end}_s')} and {getattr(self, f'{end}_requests')}; set one"
                )

    @property
    def is_whole(self) -> bool:
        """Whether the whole run counts."""
        return not any(getattr(self, name) for name in self.__slots__)

    def interval(self, arrival_s: Column, end_s: Column) -> Interval:
        """What counts of a run.

        Args:
            arrival_s: arrivals (n,), NaN for a request that was never sent.
            end_s: ends (n,), NaN for a request that did not end.

        Raises:
            ValueError: nothing is left, or no time.
        """
        order = np.argsort(arrival_s, kind="stable")[: int(np.count_nonzero(np.isfinite(arrival_s)))]
        times_s = arrival_s[order]
        first = self.warm_up_requests
        if self.warm_up_s:
            first = int(np.searchsorted(times_s, times_s[0] + self.warm_up_s))
        last = len(order) - self.cool_down_requests
        if self.cool_down_s:
            last = int(np.searchsorted(times_s, times_s[-1] - self.cool_down_s))
        if first >= last:
            raise ValueError(
                f"measure.window leaves none of {len(order)} requests ({self}); shorten it or run more requests"
            )
        from_s = float(times_s[0] + self.warm_up_s if self.warm_up_s else times_s[first])
        until_s = float(np.nanmax(end_s)) if last == len(order) else float(times_s[last])
        if self.cool_down_s:
            until_s = float(times_s[-1] - self.cool_down_s)
        if not until_s > from_s:
            raise ValueError(f"measure.window has no length: it starts and ends at {from_s} s ({self})")
        counted = np.zeros(len(arrival_s), np.bool_)
        counted[order[first:last]] = True
        return Interval(counted, from_s, until_s)
