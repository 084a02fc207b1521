"""Simulated time: whole picoseconds, as ints.

Every duration is rounded once, here; from then on time is integer arithmetic, so sums are associative and a block
of steps ends at exactly the instant that its steps one by one would end at. 64 bits hold 106 days.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.lines import TICKS_PER_S

LONGEST_RUN_S = 9.0e6


def ticks(seconds: float) -> int:
    """`seconds` as the nearest whole number of ticks."""
    return round(seconds * TICKS_PER_S)


def ticks_array(seconds: ArrayLike) -> NDArray[np.int64]:
    """`ticks` of every entry.

    Raises:
        ValueError: an entry lies beyond the range of the clock.
    """
    values = np.asarray(seconds, dtype=np.float64)
    if values.size and float(np.abs(values).max()) > LONGEST_RUN_S:
        raise ValueError(f"times must lie within {LONGEST_RUN_S:.0f} s, got {float(np.abs(values).max())} s")
    return np.rint(values * TICKS_PER_S).astype(np.int64)


def seconds(time: ArrayLike) -> NDArray[np.float64]:
    """Ticks back to seconds, for output only."""
    return np.asarray(time, dtype=np.float64) / TICKS_PER_S
