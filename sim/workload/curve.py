"""How a request rate goes up and down: the hours of a day, or the steps of a load test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.workload.base import require_at_least, require_positive, require_settings

_NEEDS = {"sinusoid": ("amplitude", "peak_at_s?"), "piecewise": ("starts_s", "weights")}

# A sinusoid is cut into so many pieces, each with its exact mean: one a minute for a day.
_PIECES = 1440


@dataclass(kw_only=True, slots=True)
class RateCurve:
    """The rate over time relative to its mean, the same in every period.

    Attributes:
        kind: sinusoid (1 + amplitude * cos(2 pi (t - peak_at_s) / period_s)) or piecewise (constant between steps).
        period_s: seconds after which it repeats, > 0.
        amplitude: sinusoid, in (0, 1]: the largest departure from the mean, as a share of it.
        peak_at_s: sinusoid, first instant of the highest rate, in [0, period_s); 0 where not set.
        starts_s: piecewise, where each piece starts: rises from 0, below period_s; at least 2.
        weights: piecewise, the rate of each piece in any unit, >= 0, not all equal: their mean over the period becomes
            the workload's rate.
    """

    kind: str
    period_s: float
    amplitude: float | None = None
    peak_at_s: float | None = None
    starts_s: list[float] | None = None
    weights: list[float] | None = None

    def check(self, prefix: str) -> None:
        """Refuses bad settings; `prefix` is where the curve stands, such as `workload.curve`.

        Raises:
            ValueError: an unknown kind, a missing, idle or out-of-range setting.
        """
        settings = asdict(self)
        require_settings(
            prefix, "kind", settings.pop("kind"), settings, {k: ("period_s", *v) for k, v in _NEEDS.items()}
        )
        require_positive(f"{prefix}.period_s", self.period_s)
        if self.amplitude is not None and not 0 < self.amplitude <= 1:
            raise ValueError(f"{prefix}.amplitude must lie in (0, 1], got {self.amplitude}")
        require_at_least(f"{prefix}.peak_at_s", self.peak_at_s, 0)
        if self.peak_at_s is not None and not self.peak_at_s < self.period_s:
            raise ValueError(f"{prefix}.peak_at_s must be < period_s = {self.period_s}, got {self.peak_at_s}")
        if self.starts_s is not None and self.weights is not None:
            _check_pieces(prefix, self.starts_s, self.weights, self.period_s)

    def pieces(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds (k + 1,) of the pieces of one period, in seconds, and their rates (k,) relative to the mean."""
        if self.starts_s is not None and self.weights is not None:
            bounds = np.append(np.asarray(self.starts_s, np.float64), self.period_s)
            weights = np.asarray(self.weights, np.float64)
            return bounds, weights * (self.period_s / float((weights * np.diff(bounds)).sum()))
        assert self.amplitude is not None
        bounds = np.linspace(0, self.period_s, _PIECES + 1)
        angle = 2 * np.pi * (bounds - (self.peak_at_s or 0.0)) / self.period_s
        return bounds, 1 + self.amplitude * np.diff(np.sin(angle)) / (2 * np.pi / _PIECES)

    def warp(self, steady_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Arrival times (n,) under the curve, from non-decreasing ones at a steady rate.

        Each arrival moves to where the rate, integrated from 0, reaches what it reached at the steady rate. A Poisson
        process stays Poisson, with the curve as its rate; unlike thinning this serves every arrival process, and
        request i stays request i whatever the curve. Source: Cinlar, "Introduction to Stochastic Processes", 1975.
        """
        bounds, rates = self.pieces()
        reached = np.concatenate(([0.0], np.cumsum(rates * np.diff(bounds))))
        periods, rest = np.divmod(steady_s, self.period_s)
        last = int(np.flatnonzero(rates)[-1])
        piece = np.minimum(np.searchsorted(reached, rest, side="right") - 1, last)
        warped = periods * self.period_s + bounds[piece] + (rest - reached[piece]) / rates[piece]
        ordered: NDArray[np.float64] = np.maximum.accumulate(warped)
        return ordered


def _check_pieces(prefix: str, starts_s: list[float], weights: list[float], period_s: float) -> None:
    if len(starts_s) != len(weights) or len(starts_s) < 2:
        raise ValueError(
            f"{prefix}.weights must have as many entries as starts_s and at least 2, "
            f"got {len(weights)} and {len(starts_s)}"
        )
    if starts_s[0] != 0 or not all(a < b for a, b in pairwise([*starts_s, period_s])):
        raise ValueError(f"{prefix}.starts_s must rise from 0 and stay below period_s = {period_s}, got {starts_s}")
    if not all(0 <= weight < np.inf for weight in weights) or len(set(weights)) == 1:
        raise ValueError(f"{prefix}.weights must be finite, >= 0 and not all equal, got {weights}")
