"""Step time as lines over cells of total context: what the serving loop asks for, in whole ticks.

For a fixed batch, the price of a step depends on the cached tokens alone and is close to linear over a cell of
them. So a block of steps costs a sum, whatever the cost model behind it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim.cost.shape import Seconds

TICKS_PER_S = 10**12
_CELLS_PER_OCTAVE = 8
_FIRST_BOUND_TOKENS = 64


def cell_bounds(most_tokens: int) -> NDArray[np.int64]:
    """Bounds between cells: eight per octave, from 64 tokens to the first bound above `most_tokens`."""
    octaves = np.log2(max(most_tokens, 2 * _FIRST_BOUND_TOKENS) / _FIRST_BOUND_TOKENS)
    exponents = np.arange(int(np.ceil(octaves)) * _CELLS_PER_OCTAVE + 1) / _CELLS_PER_OCTAVE
    return np.rint(_FIRST_BOUND_TOKENS * 2.0**exponents).astype(np.int64)


class Lines:
    """Step time in ticks over total context: in cell i, `intercept[i] + slope[i] * context`.

    The last cell has no end.
    """

    __slots__ = ("_bounds", "_bounds_list", "_intercept", "_intercept_list", "_slope", "_slope_list")

    def __init__(self, bounds: NDArray[np.int64], intercept: NDArray[np.int64], slope: NDArray[np.int64]) -> None:
        self._bounds, self._intercept, self._slope = bounds, intercept, slope
        self._bounds_list: list[int] = bounds.tolist()
        self._intercept_list: list[int] = intercept.tolist()
        self._slope_list: list[int] = slope.tolist()

    @classmethod
    def through(cls, bounds: NDArray[np.int64], seconds: Callable[[NDArray[np.int64]], Seconds]) -> Lines:
        """The chords of `seconds(context_tokens)` between 0 and the bounds; each constant rounded once."""
        knots = np.concatenate(([0], bounds))
        values = np.broadcast_to(np.asarray(seconds(knots), dtype=np.float64), knots.shape) * TICKS_PER_S
        slope = np.rint(np.diff(values) / np.diff(knots)).astype(np.int64)
        intercept = np.rint(values[:-1]).astype(np.int64) - slope * knots[:-1]
        return cls(bounds[:-1], intercept, slope)

    def at(self, context: int) -> int:
        """Ticks of one step."""
        cell = bisect_right(self._bounds_list, context)
        return self._intercept_list[cell] + self._slope_list[cell] * context

    def total(self, context: NDArray[np.int64]) -> int:
        """Ticks of a block of steps with these contexts, which must not decrease."""
        first = bisect_right(self._bounds_list, context[0])
        if first == bisect_right(self._bounds_list, context[-1]):
            return self._intercept_list[first] * len(context) + self._slope_list[first] * int(context.sum())
        return int(self.durations(context).sum())

    def durations(self, context: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ticks of each step."""
        cell = np.searchsorted(self._bounds, context, side="right")
        result: NDArray[np.int64] = self._intercept[cell] + self._slope[cell] * context
        return result
