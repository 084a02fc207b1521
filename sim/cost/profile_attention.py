"""Attention of one layer by the four axes of a layer profile, interpolated linearly.

Axes: new tokens of one prompt's chunk, tokens that prompt has cached, decoding sequences, cached tokens of each. Linear
beats logarithmic interpolation here: time is close to linear in every axis beyond the fixed cost of a launch, and so it
is carried on past the grid by the last two points.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionGrid:
    """Seconds over the full product of its axes, every axis from 0 on.

    Attributes:
        chunk, history, sequences, context: the axes, ascending.
        seconds: float64, shape (chunk, history, sequences, context).
    """

    chunk: Floats
    history: Floats
    sequences: Floats
    context: Floats
    seconds: Floats

    @classmethod
    def through(cls, points: NDArray[np.int64], seconds: Floats) -> AttentionGrid:
        """The grid of measured `points` (n, 4), axes in order; a point without chunk or without decodes has 0 there.

        Axis values that were not measured against all values of the others are left out. Batches and contexts that were
        timed alone but not beside a chunk are carried on from the two nearest; never below the chunk's own time.

        Raises:
            ValueError: no full grid of two values per axis is left, or none without chunk or without decodes.
        """
        mixed, decode, prompt = (points[:, 0] > 0) & (points[:, 2] > 0), points[:, 0] == 0, points[:, 2] == 0
        (chunk, history, *inner), both = _full_grid(points[mixed], seconds[mixed])
        outer, rows = _full_grid(points[decode][:, 2:], seconds[decode])
        sequences, context = (np.union1d(*axes) for axes in zip(inner, outer, strict=True))
        prompts, one = _full_grid(points[prompt][:, :2], seconds[prompt])
        one = _onto(one, prompts, [chunk, history])
        table = np.zeros((len(chunk) + 1, len(history), len(sequences) + 1, len(context) + 1))
        table[1:, :, 1:, 1:] = np.maximum(
            _onto(both, [chunk, history, *inner], [chunk, history, sequences, context]), one[:, :, None, None]
        )
        table[0, :, 1:, 1:] = _onto(rows, outer, [sequences, context])
        table[1:, :, 0, :] = one[:, :, None]
        table[:, :, :, 0] = table[:, :, :, 1]
        return cls(_from_zero(chunk), history, _from_zero(sequences), _from_zero(context), table)

    def beside(self, sequences: int) -> Floats:
        """Seconds over (chunk, history, context) with that many decoding sequences."""
        return _along(self.seconds, self.sequences, np.array([float(sequences)]), axis=2)[:, :, 0]

    def decode_s(self, sequences: int, context: Floats) -> Floats:
        """Seconds of so many decoding sequences alone, over the cached tokens of each."""
        return _along(self.beside(sequences)[0, 0], self.context, context, axis=0)


def segment(axis: Sequence[float], x: float) -> tuple[int, float]:
    """Index i and weight w with x = axis[i] + w (axis[i + 1] - axis[i]); w lies outside [0, 1] beyond the axis."""
    i = min(max(bisect_right(axis, x) - 1, 0), len(axis) - 2)
    return i, (x - axis[i]) / (axis[i + 1] - axis[i])


def _along(table: Floats, knots: Floats, at: Floats, axis: int) -> Floats:
    """`table` at other places of one axis: linear between its knots, and beyond them as in the last piece."""
    low = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    weight = (at - knots[low]) / (knots[low + 1] - knots[low])
    weight = weight.reshape([-1 if i == axis else 1 for i in range(table.ndim)])
    result: Floats = np.take(table, low, axis) * (1 - weight) + np.take(table, low + 1, axis) * weight
    return result


def _onto(table: Floats, axes: list[Floats], wanted: list[Floats]) -> Floats:
    """`table` on other axes."""
    for number, (axis, places) in enumerate(zip(axes, wanted, strict=True)):
        table = _along(table, axis, places, number)
    return table


def _from_zero(axis: Floats) -> Floats:
    return np.concatenate(([0.0], axis))


def _full_grid(points: NDArray[np.int64], seconds: Floats) -> tuple[list[Floats], Floats]:
    """Axes and table of the largest full product among scattered points: the emptiest axis value goes, until full."""
    axes = [np.unique(column) for column in points.T]
    table = np.full([len(axis) for axis in axes], np.nan)
    table[tuple(np.searchsorted(axis, column) for axis, column in zip(axes, points.T, strict=True))] = seconds
    while np.isnan(table).any():
        holes = [np.isnan(table).mean(axis=tuple(np.delete(np.arange(table.ndim), i))) for i in range(table.ndim)]
        worst = int(np.argmax([column.max() for column in holes]))
        at = int(np.argmax(holes[worst]))
        axes[worst] = np.delete(axes[worst], at)
        table = np.delete(table, at, axis=worst)
    if min(table.shape, default=0) < 2:
        raise ValueError(
            f"a layer profile needs attention on a full grid of two values per axis or more, got {table.shape}"
        )
    return [axis.astype(np.float64) for axis in axes], table
