"""The two-parameter line of all-reduce per GPU count, and its error on held-out sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.calibration.fit import Constant, Floats, relative_error, solve
from sim.cost.constants import AllReduce
from sim.hardware import Gpu, read_link

if TYPE_CHECKING:
    import pandas as pd

_LINE = (Constant("latency_s", 5e-6, 0.0, 1e-3), Constant("link_efficiency", 0.6, 1e-3, 1.1))


def fit_allreduce(trace: pd.DataFrame, gpu: Gpu, source: str) -> AllReduce | None:
    """The line through the in-graph all-reduces of `gpu`, None without any; every third size is held out in turn."""
    mask = (trace["op"] == "all_reduce") & (trace["gpu"] == gpu.name) & (trace["status"] == "ok")
    rows = trace[(mask & trace["graph"].fillna(value=True)).to_numpy(bool)]
    link = read_link(gpu.link)
    latency_s: dict[int, float] = {}
    efficiency: dict[int, float] = {}
    predicted_s, measured_s = [], []
    for gpus in sorted(rows["gpus"].unique().tolist()):
        ordered = rows[(rows["gpus"] == gpus).to_numpy(bool)].sort_values("message_bytes")
        message = ordered["message_bytes"].to_numpy(np.float64)
        carried_s: Floats = message * (2 * (gpus - 1) / gpus / link.bandwidth_bytes_per_s)
        seconds = ordered["latency_s"].to_numpy(np.float64)
        values = _line(carried_s, seconds)
        latency_s[gpus], efficiency[gpus] = float(values[0]), float(values[1])
        third = np.arange(len(seconds)) % 3
        for held in range(3):
            fitted = _line(carried_s[third != held], seconds[third != held])
            predicted_s.append(fitted[0] + carried_s[third == held] / fitted[1])
            measured_s.append(seconds[third == held])
    if not latency_s:
        return None
    error = relative_error(np.concatenate(predicted_s), np.concatenate(measured_s))
    return AllReduce(link_kind=link.kind, latency_s=latency_s, link_efficiency=efficiency, error=error, source=source)


def _line(carried_s: Floats, seconds: Floats) -> Floats:
    return solve(lambda values: values[0] + carried_s / values[1], _LINE, seconds)
