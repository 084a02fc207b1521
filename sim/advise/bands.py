"""Figures and gains of candidates with their bands: errors of step times, carried through the queue.

The acceptance is taken as given: a band says nothing of how far that may be off.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.bands import RunBands
from sim.metrics.bands import LEVEL
from sim.result import Result

STATISTICS = {"tpot": ("tpot_s", "mean"), "e2e": ("e2e_s", "mean"), "throughput": ("throughput", "output_tokens_per_s")}
"""Figure, as gains call it -> figure and statistic of `summary.json`."""


@dataclass(frozen=True, slots=True)
class Band:
    """A figure and the interval that holds it with probability `sim.metrics.bands.LEVEL`."""

    low: float
    value: float
    high: float


def value_bands(result: Result, bands: RunBands) -> dict[str, Band]:
    """Mean TPOT and E2E in seconds and output tokens per second; what the run does not have is left out."""
    summary, found = result.summary(), bands.ends(result.summary(), LEVEL)
    return {
        name: Band(found[figure][statistic][0], summary[figure][statistic], found[figure][statistic][1])
        for name, (figure, statistic) in STATISTICS.items()
        if statistic in found.get(figure, {})
    }


def gain_bands(gain: dict[str, float], plain: RunBands, bands: RunBands) -> dict[str, Band]:
    """The gains of a run over the one without SD."""
    return {name: Band(ends[0], gain[name], ends[1]) for name, ends in bands.speedup(plain, gain, LEVEL).items()}
