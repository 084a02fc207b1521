"""The figures of the advice page, as plain plotly data."""

from __future__ import annotations

from typing import Any

from sim.advise.advice import Advice
from sim.advise.surfaces import Grid, Surfaces

Figure = dict[str, Any]

_LINES = {"gridcolor": "--grid", "zerolinecolor": "--grid", "linecolor": "--grid", "automargin": True}


def gain_by_load(advice: Advice) -> Figure:
    """Gain of the simulated policies over the load; above 1 SD pays."""
    data = [
        {
            "type": "scatter", "mode": "lines+markers", "name": curve.label,
            "x": [_short(load.value) for load in curve.loads], "y": [_short(gain) for gain in curve.gains],
            "line": {"color": f"--run-{number}", "width": 2, "dash": "solid" if number == 0 else "dot"},
            "hovertemplate": "%{x:.3g}: %{y:.2f}",
        }
        for number, curve in enumerate(advice.curves)
    ]  # fmt: skip
    kind = advice.load.kind
    axis = {"title": {"text": "Requests per s" if kind == "rate_per_s" else "Requests in flight"}, "type": "log"}
    level = {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "layer": "below",
        "line": {"color": "--faint", "width": 1.5, "dash": "dot"},
    }  # fmt: skip
    layout = _layout(axis, {"title": {"text": f"Gain in {advice.contest.objective}"}})
    return {"data": data, "layout": layout | {"shapes": [level], "showlegend": True, "legend": {"orientation": "h"}}}


def surface(surfaces: Surfaces, grid: Grid, title: str, digits: int) -> Figure:
    """A heat map over batch and context; empty where the batch does not fit into the KV pool."""
    heat = {
        "type": "heatmap", "x": [str(batch) for batch in surfaces.batches], "y": [f"{c:,}" for c in surfaces.contexts],
        "z": [[None if value is None else _short(value) for value in row] for row in grid], "colorscale": "Viridis",
        "texttemplate": f"%{{z:.{digits}f}}", "colorbar": {"thickness": 10, "title": {"text": title}},
        "hovertemplate": f"batch %{{x}}, context %{{y}}: %{{z:.{digits}f}}<extra></extra>",
    }  # fmt: skip
    x = {"title": {"text": "Batch (sequences)"}, "type": "category"}
    return {"data": [heat], "layout": _layout(x, {"title": {"text": "Context (tokens)"}, "type": "category"})}


def _layout(x: Figure, y: Figure) -> Figure:
    return {
        "xaxis": x | _LINES, "yaxis": y | _LINES, "height": 340, "margin": {"l": 8, "r": 24, "t": 24, "b": 8},
        "paper_bgcolor": "--page", "plot_bgcolor": "--page", "showlegend": False, "hovermode": "closest",
        "font": {"family": "system-ui, sans-serif", "size": 12.5, "color": "--ink"},
    }  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.5g}")
