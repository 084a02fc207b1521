"""The interface of every acceptance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.draws import Keys, derive, uniform
from sim.request import Requests

Depths = NDArray[np.int64]


@dataclass(kw_only=True, slots=True)
class Acceptance(ABC):
    """Distribution of the acceptable depth."""

    @abstractmethod
    def survival(self, depth: int) -> NDArray[np.float64]:
        """P(acceptable depth >= j) for j = 1..depth over all positions: non-increasing, shape (depth,)."""

    def depths(
        self,
        request_keys: Keys,
        positions: NDArray[np.int64],
        depth: int,
        requests: Requests | None = None,
        ids: NDArray[np.int64] | None = None,
    ) -> Depths:
        """Acceptable depths, cut at `depth`, at `positions` (tokens emitted so far) of the requests with these keys.

        `request_keys`, `positions` and `ids` broadcast; the result has their common shape. `requests` is the stream
        and `ids` the keys' rows in it: only an acceptance that looks at groups or at a recording needs them.
        """
        u = uniform(derive(request_keys, positions))
        depths = np.zeros(u.shape, dtype=np.min_scalar_type(depth))
        for survival in self.survival(depth):
            depths += u < survival
        return depths.astype(np.int64)

    def check(self, requests: Requests) -> None:  # noqa: B027  (most answer for every stream)
        """Refuse, with a ValueError, a stream that this acceptance has no answer for."""

    def mean_accepted(self, drafts: int) -> float:
        """Expected accepted tokens of a round with `drafts` drafts, over the rounds of long outputs.

        The sum of the survival probabilities where positions are alike. Where they are not, rounds are denser at
        positions that accept little, so it is less: what an engine reports, not the mean over positions.
        """
        return float(self.survival(drafts).sum())


def check_unit(name: str, value: float) -> None:
    """Refuse a probability outside [0, 1]; `name` is the field below `speculation.acceptance`."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"speculation.acceptance.{name} must lie in [0, 1], got {value}")


def check_rates(name: str, rates: list[float]) -> None:
    """Refuse an empty list of rates, or a rate outside [0, 1]."""
    if not rates:
        raise ValueError(f"speculation.acceptance.{name} must hold at least one rate, got none")
    for index, rate in enumerate(rates):
        check_unit(f"{name}[{index}]", rate)


def padded(rates: ArrayLike, depth: int) -> NDArray[np.float64]:
    """The first `depth` entries of a list of rates, zeros beyond its end: deeper drafts are never accepted."""
    given = np.asarray(rates, dtype=np.float64)[:depth]
    return np.concatenate([given, np.zeros(depth - len(given))])


def geometric_depths(u: NDArray[np.float64], rates: NDArray[np.float64], depth: int) -> Depths:
    """Depths, cut at `depth`, where every element has its own constant rate: the number of j with u < rate ** j."""
    depths = np.zeros(np.broadcast(u, rates).shape, dtype=np.int64)
    survival = np.ones_like(rates)
    for _ in range(depth):
        survival = survival * rates
        depths += u < survival
    return depths
