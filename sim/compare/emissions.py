"""When each request's tokens came out, from the records of a simulated run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.cost.lines import TICKS_PER_S
from sim.metrics.summary import Times, block_seconds
from sim.result import Result

_SLACK_S = 1e-9
"""Far below a step, far above the rounding of a sum of step times."""

Column = NDArray[np.float64]


def emission_gaps(result: Result) -> tuple[list[Column], int]:
    """Per request the seconds between its emissions, first token first, and for how many requests they are a guess.

    A decoding sequence takes part in every step of its replica, so its emissions are the ends of the steps between its
    first token and its last (of the mean steps of blocks, where steps were not kept). A preempted request misses
    some, and the records do not say which: its gaps are spread evenly. One that did not finish has none.
    """
    times, recorder = Times.of(result.recorder), result.recorder
    ends = _step_ends(result)
    gaps, guessed = [], 0
    for request, (first, finish) in enumerate(zip(times.first_token_s, times.finish_s, strict=True)):
        if not np.isfinite(finish):
            gaps.append(np.zeros(0))
            continue
        own = ends[recorder.replica[request]]
        low, high = np.searchsorted(own, (first + _SLACK_S, finish + _SLACK_S), side="right")
        rounds = recorder.rounds[request]
        if recorder.preemptions[request] or high - low != rounds:
            guessed += 1
            emissions = max(rounds + recorder.preemptions[request], 1)
            gaps.append(np.full(emissions, (finish - first) / emissions))
        else:
            gaps.append(np.diff(own[low:high], prepend=first))
    return gaps, guessed


def _step_ends(result: Result) -> dict[int, Column]:
    """Ends of all steps of each replica, in order."""
    blocks = result.recorder.blocks()
    steps = blocks["steps"]
    seconds = result.step_seconds()
    if not result.recorder.keep_steps:
        seconds = np.repeat(block_seconds(blocks) / steps, steps)
    within = np.cumsum(seconds)
    last = np.cumsum(steps) - 1
    ends = within + np.repeat(blocks["end"] / TICKS_PER_S - within[last], steps)
    replica = np.repeat(blocks["replica"], steps)
    return {int(number): ends[replica == number] for number in np.unique(replica)}
