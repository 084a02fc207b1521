"""Acceptance given by rates: one for all depths, conditional ones per depth, unconditional ones per position."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.speculation.acceptance.base import Acceptance, check_rates, check_unit, padded


@dataclass(kw_only=True, slots=True)
class ConstantRate(Acceptance):
    """Every draft is accepted with probability `rate` given that all before it were (alpha of the paper, eq. 5)."""

    rate: float

    def __post_init__(self) -> None:
        check_unit("rate", self.rate)

    def survival(self, depth: int) -> NDArray[np.float64]:
        """rate ** j."""
        return self.rate ** np.arange(1, depth + 1, dtype=np.float64)


@dataclass(kw_only=True, slots=True)
class RatePerDepth(Acceptance):
    """The conditional rate at depth j is `rates[j - 1]`; depths beyond the list are never accepted."""

    rates: list[float]

    def __post_init__(self) -> None:
        check_rates("rates", self.rates)

    def survival(self, depth: int) -> NDArray[np.float64]:
        """Running products of the conditional rates."""
        return np.multiply.accumulate(padded(self.rates, depth))


@dataclass(kw_only=True, slots=True)
class RatePerPosition(Acceptance):
    """`rates[j - 1]` is the unconditional probability that the first j drafts are all accepted.

    The figure that vLLM prints as "Per-position acceptance rate" and takes as `synthetic_acceptance_rates`; positions
    beyond the list are never accepted.
    """

    rates: list[float]

    def __post_init__(self) -> None:
        check_rates("rates", self.rates)
        for index, (before, rate) in enumerate(pairwise(self.rates), 1):
            if rate > before:
                raise ValueError(
                    f"speculation.acceptance.rates[{index}] must be <= rates[{index - 1}] = {before}, got {rate}: "
                    "a draft counts only if all before it were accepted; conditional rates belong to rate_per_depth"
                )

    def survival(self, depth: int) -> NDArray[np.float64]:
        """`rates` themselves."""
        return padded(self.rates, depth)
