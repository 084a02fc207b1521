"""Bounded robust least squares of relative error, from several starts, with standard errors clustered by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROBUST_SCALE = 0.1
"""Relative error beyond which a row counts linearly instead of quadratically (soft L1)."""

_STARTS_SEED = 0

Floats = NDArray[np.float64]
Predict = Callable[[Floats], Floats]
"""Values of the constants -> seconds of every row."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant to fit: where the search starts and what it may be."""

    name: str
    start: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high or self.low == self.high:
            raise ValueError(
                f"{self.name}: start must lie in [low, high], got {self.start} in [{self.low}, {self.high}]"
            )


@dataclass(frozen=True, slots=True)
class Solution:
    """Fitted values and their standard errors; NaN where a value lies on its bound."""

    values: Floats
    standard_errors: Floats


def relative_error(predicted_s: Floats, measured_s: Floats) -> float:
    """Mean absolute relative error."""
    return float(np.mean(np.abs(predicted_s / measured_s - 1.0)))


def solve(predict: Predict, constants: Sequence[Constant], measured_s: Floats, starts: int = 3) -> Floats:
    """Values of `constants` that bring `predict` nearest to `measured_s` in relative error.

    Raises:
        ValueError: fewer than three rows per constant.
    """
    from scipy.optimize import least_squares

    if len(measured_s) < 3 * len(constants):
        raise ValueError(f"{len(constants)} constants need at least {3 * len(constants)} rows, got {len(measured_s)}")
    scale = np.array([max(abs(c.start), 0.01 * c.high) for c in constants])
    low, high = (np.array([getattr(c, side) for c in constants]) / scale for side in ("low", "high"))

    def residuals(scaled: Floats) -> Floats:
        return predict(scaled * scale) / measured_s - 1.0

    best: Floats | None = None
    best_cost = np.inf
    for start in _starts(constants, starts):
        found = least_squares(residuals, start / scale, bounds=(low, high), loss="soft_l1", f_scale=ROBUST_SCALE)
        if found.cost < best_cost:
            best, best_cost = found.x * scale, found.cost
    assert best is not None
    return best


def standard_errors(
    predict: Predict,
    constants: Sequence[Constant],
    values: Floats,
    measured_s: Floats,
    groups: NDArray[np.int64],
) -> Floats:
    """Standard errors of `values`, rows of one group taken as one draw; NaN on a bound or where not identified."""
    span = np.array([c.high - c.low for c in constants])
    inside = np.array(
        [c.low + 1e-3 * s < v < c.high - 1e-3 * s for c, v, s in zip(constants, values, span, strict=True)]
    )
    errors = np.full(len(values), np.nan)
    if not inside.any() or len(np.unique(groups)) < 2:
        return errors
    here = predict(values) / measured_s - 1.0
    columns = []
    for index in np.flatnonzero(inside):
        step = np.zeros(len(values))
        step[index] = 1e-4 * max(abs(values[index]), 1e-2 * span[index])
        columns.append((predict(values + step) - predict(values - step)) / (2 * step[index] * measured_s))
    jacobian = np.stack(columns, axis=1)
    slope = 1.0 + (here / ROBUST_SCALE) ** 2
    influence = here / np.sqrt(slope)
    unit = np.linalg.norm(jacobian, axis=0)
    jacobian = jacobian / np.where(unit > 0, unit, 1.0)
    curvature = np.linalg.pinv(jacobian.T @ (jacobian / slope[:, None] ** 1.5))
    scores = np.zeros((groups.max() + 1, jacobian.shape[1]))
    np.add.at(scores, groups, jacobian * influence[:, None])
    spread = np.sqrt(np.maximum(np.diag(curvature @ (scores.T @ scores) @ curvature), 0.0))
    errors[inside] = np.divide(spread, unit, out=np.full(len(unit), np.nan), where=unit > 0)
    return errors


def _starts(constants: Sequence[Constant], count: int) -> list[Floats]:
    """The given start, then ones scattered around it, inside the bounds."""
    draws = np.random.default_rng(_STARTS_SEED)
    first = np.array([c.start for c in constants], dtype=np.float64)
    low, high = (np.array([getattr(c, side) for c in constants]) for side in ("low", "high"))
    margin = 1e-6 * (high - low)
    scattered = [first * np.exp(draws.normal(0.0, 0.5, len(first))) for _ in range(count - 1)]
    return [np.clip(start, low + margin, high - margin) for start in (first, *scattered)]
