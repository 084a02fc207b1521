"""Step time as lines over cells of total context: what the serving loop asks for, in whole ticks.

For a fixed batch, the price of a step depends on the cached tokens alone and is close to linear over a cell of
them. So a block of steps costs a difference of two sums, whatever the cost model behind it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from sim.cost.shape import Seconds

TICKS_PER_S = 10**12
_CELLS_PER_OCTAVE = 8
_FIRST_BOUND_TOKENS = 64
_TOLERANCE = 1e-4
_NO_BOUND = 1 << 62


def ticks_table(seconds: Seconds) -> Sequence[int]:
    """Every entry rounded once to whole ticks; a view of the array, as few entries of a table are ever read."""
    return cast("Sequence[int]", np.rint(np.atleast_1d(seconds) * TICKS_PER_S).astype(np.int64).data)


def cell_bounds(most_tokens: int) -> NDArray[np.int64]:
    """Bounds between cells: eight per octave, from 64 tokens to the first bound above `most_tokens`."""
    octaves = np.log2(max(most_tokens, 2 * _FIRST_BOUND_TOKENS) / _FIRST_BOUND_TOKENS)
    exponents = np.arange(int(np.ceil(octaves)) * _CELLS_PER_OCTAVE + 1) / _CELLS_PER_OCTAVE
    return np.rint(_FIRST_BOUND_TOKENS * 2.0**exponents).astype(np.int64)


class Lines:
    """Step time in ticks over total context: in cell i, `intercept[i] + slope[i] * context`.

    Attributes:
        bounds: where every cell but the last ends (the first context of the next); the last cell has no end.
        intercept, slope: of each cell, ticks and ticks per token.
    """

    __slots__ = ("_bounds", "_intercept", "_slope", "bounds", "intercept", "slope")

    def __init__(self, bounds: NDArray[np.int64], intercept: NDArray[np.int64], slope: NDArray[np.int64]) -> None:
        self._bounds, self._intercept, self._slope = bounds, intercept, slope
        self.bounds: list[int] = [*bounds.tolist(), _NO_BOUND]
        self.intercept: list[int] = intercept.tolist()
        self.slope: list[int] = slope.tolist()

    @classmethod
    def through(cls, bounds: NDArray[np.int64], seconds: Callable[[NDArray[np.int64]], Seconds]) -> Lines:
        """Chords of `seconds(context_tokens)` between some of 0 and the bounds; each constant rounded once.

        Neighbouring cells are one where their common chord leaves none of the bounds by more than 1e-4 of the time.
        """
        knots = np.concatenate(([0], bounds))
        values = np.broadcast_to(np.asarray(seconds(knots), dtype=np.float64), knots.shape) * TICKS_PER_S
        kept = np.array([*_straight(knots.tolist(), values.tolist(), 0, len(knots) - 1), len(knots) - 1])
        knots, values = knots[kept], values[kept]
        slope = np.rint(np.diff(values) / np.diff(knots)).astype(np.int64)
        intercept = np.rint(values[:-1]).astype(np.int64) - slope * knots[:-1]
        return cls(knots[1:-1], intercept, slope)

    def at(self, context: int) -> int:
        """Ticks of one step."""
        cell = bisect_right(self.bounds, context)
        return self.intercept[cell] + self.slope[cell] * context

    def durations(self, context: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ticks of each step."""
        cell = np.searchsorted(self._bounds, context, side="right")
        result: NDArray[np.int64] = self._intercept[cell] + self._slope[cell] * context
        return result


def _straight(knots: list[int], values: list[float], first: int, last: int) -> list[int]:
    """Knots at which pieces start that are straight to within the tolerance, halved until they are."""
    start, low = knots[first], values[first]
    span, rise = knots[last] - start, values[last] - low
    for knot, value in zip(knots[first + 1 : last], values[first + 1 : last], strict=True):
        if not abs(low + (knot - start) / span * rise - value) <= _TOLERANCE * value:
            middle = (first + last) // 2
            return _straight(knots, values, first, middle) + _straight(knots, values, middle, last)
    return [first]
