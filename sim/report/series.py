"""The data behind the figures: distributions and histories, thinned without losing what they add up to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.cost.lines import TICKS_PER_S
from sim.metrics.summary import Times
from sim.result import Result

MOST_POINTS = 500
MOST_BINS = 240

Column = NDArray[np.float64]


def ecdf(values: Column, most_points: int = MOST_POINTS) -> tuple[Column, Column]:
    """Points of the empirical distribution of the finite values: the k-th smallest of n, and k / n, extremes in."""
    ordered = np.sort(values[np.isfinite(values)])
    if not ordered.size:
        return ordered, ordered
    rank = np.rint(np.linspace(0, ordered.size - 1, min(ordered.size, most_points))).astype(np.int64)
    return ordered[rank], (rank + 1) / ordered.size


def binned(start_s: Column, end_s: Column, amount: Column, edges_s: Column) -> Column:
    """What falls into each bin when every `amount` (n,) is spread evenly over its interval.

    Intervals are in order and do not overlap. Over bins that cover all intervals the result adds up to `amount`.
    """
    if not start_s.size:
        return np.zeros(len(edges_s) - 1)
    knots = np.stack([start_s, end_s], axis=1).ravel()
    after = np.cumsum(amount)
    total = np.stack([after - amount, after], axis=1).ravel()
    inside: Column = np.diff(np.interp(edges_s, knots, total))
    return inside


def covered(start_s: Column, end_s: Column, edges_s: Column) -> Column:
    """Seconds of all intervals together in each bin; intervals may overlap."""
    return _seconds_after(start_s, edges_s) - _seconds_after(end_s, edges_s)


def _seconds_after(instants_s: Column, edges_s: Column) -> Column:
    """Seconds of each bin that lie after an instant, summed over the instants."""
    ordered = np.sort(instants_s)
    passed = np.searchsorted(ordered, edges_s)
    since = passed * edges_s - np.concatenate([[0.0], np.cumsum(ordered)])[passed]
    seconds: Column = np.diff(since)
    return seconds


def history(result: Result, edges_s: Column) -> dict[str, Column]:
    """Per bin: output tokens emitted, and mean requests running and waiting.

    A request runs while it is part of steps; what is sent, unfinished and not running waits. Together they are
    Little's L.
    """
    blocks, times = result.recorder.blocks(), Times.of(result.recorder)
    start_s, end_s = blocks["start"] / TICKS_PER_S, blocks["end"] / TICKS_PER_S
    tokens, running = np.zeros(len(edges_s) - 1), np.zeros(len(edges_s) - 1)
    for replica in np.unique(blocks["replica"]).tolist():
        mine = blocks["replica"] == replica
        emitted = blocks["emitted_tokens"][mine].astype(np.float64)
        batch = (blocks["sequences"] + blocks["chunks"])[mine]
        tokens += binned(start_s[mine], end_s[mine], emitted, edges_s)
        running += binned(start_s[mine], end_s[mine], batch * (end_s - start_s)[mine], edges_s)
    present = covered(times.arrival_s, times.end_s, edges_s)
    width_s = np.diff(edges_s)
    return {
        "output_tokens": tokens,
        "running": running / width_s,
        "waiting": np.maximum(present - running, 0.0) / width_s,
    }
