"""A ribbon around the speedup over the batch size: its band."""

from __future__ import annotations

import numpy as np

from sim.metrics.bands import interval, speedup_factors
from sim.report.plot import Column, Figure, short
from sim.report.runs import Run

_POINTS = 12


def ribbon(index: int, run: Run, context_tokens: int, batch: Column, speedup: Column) -> list[Figure]:
    """The band of the speedup over the batch size as a filled outline; nothing where the run has no bands."""
    if not run.bands:
        return []
    result = run.result
    points = np.unique(np.linspace(0, len(batch) - 1, _POINTS).astype(np.int64))
    ends = np.array([
        interval(speedup_factors(result.cost, context_tokens, float(batch[i]), result.experiment.measured_step))
        for i in points
    ])  # fmt: skip
    low, high = (np.interp(np.log(batch), np.log(batch[points]), ends[:, side]) * speedup for side in (0, 1))
    return [
        {
            "type": "scatter", "mode": "lines", "name": run.label, "meta": index, "hoverinfo": "skip",
            "x": short(np.concatenate((batch, batch[::-1]))), "y": short(np.concatenate((high, low[::-1]))),
            "fill": "toself", "line": {"width": 0, "color": run.colour}, "opacity": 0.25,
        }
    ]  # fmt: skip
