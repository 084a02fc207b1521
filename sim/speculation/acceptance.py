"""Acceptance: how many draft tokens in a row the target would accept at a position of a request's output.

A position has one *acceptable depth* d, whatever is drafted there: a round that starts there with gamma drafts accepts
min(d, gamma) of them and emits one token more (rejection sampling stops at the first rejection: Leviathan et al., 2023,
algorithm 1). So every draft length, the replay of recorded depths and the oracle are the same draw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.draws import Keys, derive, uniform


@dataclass(kw_only=True, slots=True)
class Acceptance(ABC):
    """Distribution of the acceptable depth."""

    @abstractmethod
    def survival(self, depth: int) -> NDArray[np.float64]:
        """P(acceptable depth >= j) for j = 1..depth: non-increasing, shape (depth,)."""

    def depths(self, request_keys: Keys, positions: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        """Acceptable depths, cut at `depth`, at `positions` (tokens emitted so far) of the requests with these keys.

        `request_keys` and `positions` broadcast; the result has their common shape.
        """
        u = uniform(derive(request_keys, positions))
        ascending = self.survival(depth)[::-1]
        return depth - np.searchsorted(ascending, u, side="right")

    def mean_accepted(self, drafts: int) -> float:
        """Expected accepted tokens of a round with `drafts` drafts: the sum of the survival probabilities."""
        return float(self.survival(drafts).sum())


@dataclass(kw_only=True, slots=True)
class ConstantRate(Acceptance):
    """Every draft is accepted with probability `rate` given that all before it were (alpha of the paper, eq. 5)."""

    rate: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"speculation.acceptance.rate must lie in [0, 1], got {self.rate}")

    def survival(self, depth: int) -> NDArray[np.float64]:
        """rate ** j."""
        return self.rate ** np.arange(1, depth + 1, dtype=np.float64)


@dataclass(kw_only=True, slots=True)
class RatePerDepth(Acceptance):
    """The conditional rate at depth j is `rates[j - 1]`; depths beyond the list are never accepted."""

    rates: list[float]

    def __post_init__(self) -> None:
        if not self.rates:
            raise ValueError("speculation.acceptance.rates must hold at least one rate, got none")
        for j, rate in enumerate(self.rates):
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"speculation.acceptance.rates[{j}] must lie in [0, 1], got {rate}")

    def survival(self, depth: int) -> NDArray[np.float64]:
        """Running products of the conditional rates."""
        rates: NDArray[np.float64] = np.zeros(depth, dtype=np.float64)
        known = min(depth, len(self.rates))
        rates[:known] = self.rates[:known]
        return np.multiply.accumulate(rates)
