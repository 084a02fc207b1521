"""Parts that all figures share, as plain plotly dicts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Figure = dict[str, Any]
Column = NDArray[np.float64]


def axis(title: str, **more: Any) -> Figure:
    """An axis with a title; `more` as plotly names it."""
    lines = {"gridcolor": "--grid", "zerolinecolor": "--grid", "linecolor": "--grid", "automargin": True}
    return {"title": {"text": title, "standoff": 8}} | lines | more


def layout_of(x: Figure, y: Figure) -> Figure:
    """A layout in the colours of the style sheet."""
    return {
        "xaxis": x,
        "yaxis": y,
        "height": 320,
        "margin": {"l": 8, "r": 24, "t": 32, "b": 8},
        "paper_bgcolor": "--page",
        "plot_bgcolor": "--page",
        "font": {"family": "system-ui, sans-serif", "size": 12.5, "color": "--ink"},
        "hoverlabel": {"bgcolor": "--page", "bordercolor": "--grid", "font": {"color": "--ink"}, "namelength": -1},
        "showlegend": False,
        "hovermode": "closest",
        "uirevision": "zoom and legend outlive a redraw",
    }


def short(values: Column) -> list[float]:
    """Six significant digits: finer than a screen, coarser than the last bit of another machine's library."""
    return [float(f"{value:.6g}") for value in values.tolist()]
