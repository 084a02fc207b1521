"""Goodput: requests per second that meet the SLO of their class.

Source: Zhong et al., "DistServe" (OSDI 2024), who bound TTFT and TPOT; `vllm bench serve --goodput` adds E2E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Mask = NDArray[np.bool_]

EVERY_OTHER = "all"
"""The class name that stands for every group without an SLO of its own."""


@dataclass(kw_only=True, slots=True)
class Slo:
    """Bounds of one class in seconds; one that is not set bounds nothing, and one at least is set.

    Attributes:
        ttft_s: time to first token, > 0.
        tpot_s: time per output token after the first, > 0; a request of one token has none and meets it.
        e2e_s: time to last token, > 0.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __post_init__(self) -> None:
        bounds = {name: getattr(self, name) for name in self.__slots__}
        if all(bound is None for bound in bounds.values()):
            raise ValueError("measure.slo must bound one at least of ttft_s, tpot_s and e2e_s, got none")
        for name, bound in bounds.items():
            if bound is not None and not bound > 0:
                raise ValueError(f"measure.slo: {name} must be > 0, got {bound}")

    def met(self, ttft_s: Column, tpot_s: Column, e2e_s: Column) -> Mask:
        """Which requests (n,) meet it; a request that did not finish (its `e2e_s` is NaN) does not."""
        met: Mask = np.isfinite(e2e_s)
        for bound, value in ((self.ttft_s, ttft_s), (self.tpot_s, tpot_s), (self.e2e_s, e2e_s)):
            if bound is not None:
                met = met & ~(value > bound)
        return met


def slo_of_group(slo: Mapping[str, Slo], groups: tuple[str, ...]) -> list[Slo | None]:
    """The SLO of each of `groups`: its own, or that of `all`, or none.

    Raises:
        ValueError: an SLO that no group would use.
    """
    unknown = [name for name in slo if name != EVERY_OTHER and name not in groups]
    if unknown:
        raise ValueError(f"measure.slo must name groups of the workload ({', '.join(groups)}) or all, got {unknown[0]}")
    if EVERY_OTHER in slo and all(name in slo and name != EVERY_OTHER for name in groups):
        raise ValueError("measure.slo.all has no effect where every group has an SLO of its own; leave it out")
    return [slo.get(name, slo.get(EVERY_OTHER)) for name in groups]


def slo_met(
    slos: list[Slo | None], group: NDArray[np.int32], ttft_s: Column, tpot_s: Column, e2e_s: Column
) -> tuple[Mask, Mask]:
    """Which requests (n,) meet the SLO of their group, and which have one; `slos` by group."""
    met, bound = np.zeros(len(group), np.bool_), np.zeros(len(group), np.bool_)
    for number, slo in enumerate(slos):
        if slo is not None:
            rows = group == number
            bound |= rows
            met[rows] = slo.met(ttft_s[rows], tpot_s[rows], e2e_s[rows])
    return met, bound


def goodput(
    met: Mask, counted: Mask, group: NDArray[np.int32], groups: tuple[str, ...], seconds: float
) -> dict[str, Any]:
    """Goodput in all and by class.

    Args:
        met: (n,) requests that meet their SLO.
        counted: (n,) requests that count: in the window, with an SLO.
        group: (n,) index of each request's class in `groups`.
        groups: names of the classes.
        seconds: length of the window.

    Returns:
        requests, requests_per_s (those that meet it) and attainment (their share of those that count); the same by
        class in `classes`, without the classes of which nothing counts.
    """

    def figures(rows: Mask) -> dict[str, Any]:
        good, of = int(np.count_nonzero(met & rows)), int(np.count_nonzero(rows))
        return {"requests": of, "requests_per_s": good / seconds, "attainment": good / of}

    rows_of = {name: counted & (group == number) for number, name in enumerate(groups)}
    classes = {name: figures(rows) for name, rows in rows_of.items() if rows.any()}
    return (figures(counted) if counted.any() else {}) | {"classes": classes}
