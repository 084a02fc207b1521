"""Acceptance whose rate varies: from request to request, and along a request.

A rate is the Beta quantile of a standard normal number, so its distribution over positions is Beta whatever
correlates the normal numbers. Across requests, the number is a draw of the request. Along a request, it is value
noise: draws at knots `drift_tokens` apart, blended between them and rescaled to unit variance; a function of the
address (request, position) alone, like every draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.draws import Keys, derive, uniform
from sim.request import Requests
from sim.speculation.acceptance.base import Acceptance, Depths, geometric_depths

_OF_REQUEST = 1 << 62
_OF_KNOT = _OF_REQUEST + 1
_NORMAL_SPAN = 6.0
_QUANTILES = 4097


@dataclass(kw_only=True, slots=True)
class BetaRate(Acceptance):
    """Every request has a constant rate of its own, Beta distributed.

    Attributes:
        mean: mean rate, in (0, 1).
        concentration: alpha + beta of the distribution, > 0: the variance is mean (1 - mean) / (concentration + 1).
    """

    mean: float
    concentration: float

    def __post_init__(self) -> None:
        if not 0.0 < self.mean < 1.0:
            raise ValueError(f"speculation.acceptance.mean must lie inside (0, 1), got {self.mean}")
        if not 0.0 < self.concentration < np.inf:
            raise ValueError(
                f"speculation.acceptance.concentration must be > 0 and finite, got {self.concentration}; "
                "for one rate for all take constant_rate"
            )

    def survival(self, depth: int) -> NDArray[np.float64]:
        """The moments of the Beta distribution: E[rate ** j], the product of (a + i) / (a + b + i) for i < j."""
        steps = np.arange(depth, dtype=np.float64)
        moments = (self.mean * self.concentration + steps) / (self.concentration + steps)
        return np.multiply.accumulate(moments)

    def mean_accepted(self, drafts: int) -> float:
        """Of one output: tokens over rounds, where a request of rate a takes a round per 1 + a + ... + a^drafts tokens.

        Exact for rates that belong to requests of one length, and for drift that is slow against a round.
        """
        span, rates = _beta_quantiles(self.mean, self.concentration)
        tokens = np.power.outer(rates, np.arange(drafts + 1)).sum(axis=1)
        return float(1.0 / np.average(1.0 / tokens, weights=np.exp(-0.5 * span**2)) - 1.0)

    def depths(
        self,
        request_keys: Keys,
        positions: NDArray[np.int64],
        depth: int,
        requests: Requests | None = None,
        ids: NDArray[np.int64] | None = None,
    ) -> Depths:
        """Each position by the rate that holds there."""
        rates = self.rates(request_keys, positions)
        return geometric_depths(uniform(derive(request_keys, positions)), rates, depth)

    def rates(self, request_keys: Keys, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """The acceptance rate at each position, in the common shape of both."""
        span, quantiles = _beta_quantiles(self.mean, self.concentration)
        return np.interp(self._normal(request_keys, positions), span, quantiles)

    def _normal(self, request_keys: Keys, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        return _normal(derive(request_keys, _OF_REQUEST)) + np.zeros(np.shape(positions))


@dataclass(kw_only=True, slots=True)
class DriftingRate(BetaRate):
    """A Beta distributed rate that drifts along a request: hard and easy passages.

    Attributes:
        drift_tokens: tokens between knots, >= 1; rates two knots apart share the request's level only.
        request_share: share of the (normal) variance that is the request's own level, in [0, 1); 0 is pure drift.
    """

    drift_tokens: int
    request_share: float = 0.0

    def __post_init__(self) -> None:
        BetaRate.__post_init__(self)
        if self.drift_tokens < 1:
            raise ValueError(f"speculation.acceptance.drift_tokens must be >= 1, got {self.drift_tokens}")
        if not 0.0 <= self.request_share < 1.0:
            raise ValueError(
                f"speculation.acceptance.request_share must lie in [0, 1), got {self.request_share}; "
                "for rates that do not drift take beta_rate"
            )

    def _normal(self, request_keys: Keys, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        knot, past = np.divmod(np.asarray(positions), self.drift_tokens)
        share = past / self.drift_tokens
        blend = share * share * (3.0 - 2.0 * share)
        knots = derive(request_keys, _OF_KNOT)
        drift = (1.0 - blend) * _normal(derive(knots, knot)) + blend * _normal(derive(knots, knot + 1))
        drift = drift / np.hypot(1.0 - blend, blend)
        level = _normal(derive(request_keys, _OF_REQUEST))
        normal: NDArray[np.float64] = np.sqrt(self.request_share) * level + np.sqrt(1.0 - self.request_share) * drift
        return normal


def _normal(keys: Keys) -> NDArray[np.float64]:
    from scipy.special import ndtri

    normal: NDArray[np.float64] = ndtri(uniform(keys) + 2.0**-54)
    return normal


@lru_cache(maxsize=8)
def _beta_quantiles(mean: float, concentration: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard normal numbers, and the Beta quantiles at their probabilities."""
    from scipy.special import betaincinv, ndtr

    span = np.linspace(-_NORMAL_SPAN, _NORMAL_SPAN, _QUANTILES)
    return span, betaincinv(mean * concentration, (1.0 - mean) * concentration, ndtr(span))
