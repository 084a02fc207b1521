"""Experts that the steps of a run activated, over the tokens they computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim import theory
from sim.metrics.summary import block_seconds, block_shape
from sim.report.plot import Figure, axis, layout_of, short
from sim.report.runs import Run
from sim.report.series import Column

_BINS_PER_OCTAVE = 6
_LARGEST_MARKER = 20.0


def activation_figure(runs: Sequence[Run]) -> Figure:
    """N(t): a marker per size of step, as large as the time spent in such steps, and eq. 8 as a line."""
    data: list[Figure] = []
    for index, run in enumerate(runs):
        if run.result.cost.target.model.is_moe:
            tokens, experts, share = steps_by_tokens(run)
            if not any(trace["name"] == _closed_form(run) for trace in data):
                data.append(_line(run, float(tokens.max())))
            data.append(_markers(index, run, tokens, experts, share))
    x = axis("Query tokens of the step", type="log", tickvals=[2**k for k in range(15)])
    return {"data": data, "layout": layout_of(x, axis("Experts per layer", rangemode="tozero"))}


def steps_by_tokens(run: Run) -> tuple[Column, Column, Column]:
    """Mean tokens, mean activated experts and share of time of the steps, in classes of similar size."""
    blocks = run.result.recorder.blocks()
    shape, seconds = block_shape(blocks), block_seconds(blocks)
    tokens = np.maximum(np.asarray(shape.tokens, dtype=np.float64), 1.0)
    experts = np.asarray(run.result.cost.target.distinct_experts(shape))
    number = np.rint(np.log2(tokens) * _BINS_PER_OCTAVE).astype(np.int64)
    time_s = np.bincount(number, seconds)
    used = time_s > 0
    means = [(np.bincount(number, seconds * column)[used] / time_s[used]) for column in (tokens, experts)]
    return means[0], means[1], time_s[used] / time_s.sum()


def _closed_form(run: Run) -> str:
    ffn = next(layers.ffn for layers in run.result.cost.target.model.layers if layers.ffn.kind == "moe")
    return f"uniform routing, {ffn.experts_per_token} of {ffn.experts} (eq. 8)"


def _line(run: Run, most: float) -> Figure:
    ffn = next(layers.ffn for layers in run.result.cost.target.model.layers if layers.ffn.kind == "moe")
    tokens = np.geomspace(1.0, max(2.0, most), 120)
    hit = np.asarray(theory.activated_experts(tokens, ffn.experts, ffn.experts_per_token))
    return {
        "type": "scatter", "mode": "lines", "name": _closed_form(run), "x": short(tokens), "y": short(hit),
        "line": {"color": "--faint", "width": 1.5, "dash": "dot"}, "hovertemplate": "t = %{x:.0f}: %{y:.1f}",
    }  # fmt: skip


def _markers(index: int, run: Run, tokens: Column, experts: Column, share: Column) -> Figure:
    size = np.maximum(_LARGEST_MARKER * np.sqrt(share / share.max()), 3.0)
    marker = {"color": run.colour, "size": short(size), "line": {"color": "--page", "width": 1}, "opacity": 0.85}
    return {
        "type": "scatter", "mode": "markers", "name": run.label, "meta": index, "x": short(tokens), "y": short(experts),
        "marker": marker | {"symbol": "circle" if run.dash == "solid" else "circle-open"},
        "text": [f"{value:.1%} of the time" for value in share.tolist()],
        "hovertemplate": "t = %{x:.0f}: %{y:.1f}, %{text}",
    }  # fmt: skip
