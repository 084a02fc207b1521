"""Gauss-Newton steps over few constants whose effects are simulated: differences, bounds, standard errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Residuals = Callable[[Vector], Vector]

_DIFFERENCE = 0.02
_ITERATIONS = 8
_HALVINGS = 4
_STILL = 2e-3
"""A step below this ends the search: a tenth of the smallest tolerance of a figure."""


@dataclass(frozen=True, slots=True, eq=False)
class Minimum:
    """Where the squares are least.

    Attributes:
        at: the constants.
        residuals, jacobian: there; the jacobian has a column per free constant.
    """

    at: Vector
    residuals: Vector
    jacobian: Vector

    @property
    def errors(self) -> Vector:
        """Standard errors of the free constants; infinite where nothing moves a residual.

        Where the residuals are larger than the tolerances say, and there are more of them than constants, the errors
        grow with them.
        """
        return standard_errors(self.jacobian, self.residuals)


def least_squares(residuals: Residuals, start: Vector, free: list[int], bounds: Vector) -> Minimum:
    """The nearest minimum over the `free` entries of `start`, inside `bounds` (two rows: lowest, highest)."""
    at, here = start.copy(), residuals(start)
    for _ in range(_ITERATIONS):
        slope = jacobian(residuals, at, here, free)
        step = np.zeros_like(at)
        step[free] = np.linalg.lstsq(slope, -here, rcond=1e-6)[0]
        moved, there = _shortened(residuals, at, here, step, bounds)
        still = float(np.abs(moved - at).max()) < _STILL
        at, here = moved, there
        if still:
            break
    return Minimum(at, here, jacobian(residuals, at, here, free))


def jacobian(residuals: Residuals, at: Vector, here: Vector, free: list[int]) -> Vector:
    """Differences upwards: every simulation of a slower deployment."""
    columns = []
    for index in free:
        moved = at.copy()
        moved[index] += _DIFFERENCE
        columns.append((residuals(moved) - here) / _DIFFERENCE)
    return np.stack(columns, axis=1)


def standard_errors(slope: Vector, here: Vector) -> Vector:
    """As `Minimum.errors`."""
    rows, columns = slope.shape
    information = slope.T @ slope
    if rows < columns or np.linalg.cond(information) > 1e12:
        return np.full(columns, np.inf)
    beyond = float(here @ here) / (rows - columns) if rows > columns else 1.0
    errors: Vector = np.sqrt(np.diag(np.linalg.inv(information)) * max(1.0, beyond))
    return errors


def _shortened(residuals: Residuals, at: Vector, here: Vector, step: Vector, bounds: Vector) -> tuple[Vector, Vector]:
    """The step inside the bounds, halved until the squares fall; where they never do, `at` itself."""
    for _ in range(_HALVINGS):
        moved = np.clip(at + step, *bounds)
        there = residuals(moved)
        if there @ there <= here @ here:
            return moved, there
        step *= 0.5
    return at, here
