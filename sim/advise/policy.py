"""The advised draft lengths: few ranges of batch sizes that lose next to nothing against the best length at each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.advise.static import Column, StaticBatches

TOLERANCE = 0.005
"""Share of the expected tokens per second that a range may lose at any of its batches."""


def advised_ranges(
    static: StaticBatches, context_tokens: int, most_batch: int, *, saturated: bool = False
) -> list[list[int]]:
    """Rows [first, last, drafts] for batches 1 to `most_batch`, the fewest within `TOLERANCE` of the best everywhere.

    Args:
        static: prices.
        context_tokens: cached of every sequence.
        most_batch: the largest batch that can run.
        saturated: for the most tokens of a server that is always full, prompts counted; else for the shortest time of
            those that decode. Drafts cost least there and win most, for a step that computes prompts is long anyway.
    """
    batches = np.arange(1, most_batch + 1)
    contexts = np.full_like(batches, context_tokens)
    return merged(static.saturated_rates(batches, contexts) if saturated else static.rates(batches, contexts))


def merged(rates: Column) -> list[list[int]]:
    """The fewest ranges of consecutive columns in which one row is within `TOLERANCE` of the best of each column.

    Args:
        rates: (lengths, batches), row g with g drafts, column b at batch b + 1.
    """
    good = rates >= (1.0 - TOLERANCE) * rates.max(axis=0)
    ranges: list[list[int]] = []
    first = 0
    while first < rates.shape[1]:
        last, usable = _reach(good, first)
        relative = (rates[:, first : last + 1] / rates[:, first : last + 1].max(axis=0)).mean(axis=1)
        ranges.append([first + 1, last + 1, int(np.argmax(np.where(usable, relative, -1.0)))])
        first = last + 1
    return ranges


def _reach(good: NDArray[np.bool_], first: int) -> tuple[int, NDArray[np.bool_]]:
    """The last column that shares a good row with all from `first` on, and these rows."""
    usable, last = good[:, first], first
    while last + 1 < good.shape[1] and (usable & good[:, last + 1]).any():
        last += 1
        usable = usable & good[:, last]
    return last, usable
