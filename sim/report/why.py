"""Why the speedup is what it is: the waterfall from the ideal, as a figure and as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sim.report.plot import Figure, axis, layout_of
from sim.report.runs import Run
from sim.report.tables import Group, sortable
from sim.waterfall import BARS, Waterfall

_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


def why_figure(runs: Sequence[Run]) -> Figure:
    """Floating bars between the ideal and the achieved speedup of every run with SD, on a logarithmic scale."""
    data = [_bars(index, run) for index, run in enumerate(runs) if run.why is not None]
    ends = [end for trace in data for base, height in zip(trace["base"], trace["y"], strict=True)
            for end in (base, base + height)]  # fmt: skip
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    shown = [tick for tick in _TICKS if low - 0.2 <= math.log2(tick) <= high + 0.2]
    scale = axis(
        "Speedup in mean TPOT", tickvals=[round(math.log2(t), 6) for t in shown], ticktext=[f"{t:g}×" for t in shown]
    )
    grouped = {"barmode": "group", "bargap": 0.25, "height": 420, "hovermode": "closest"}
    return {"data": data, "layout": layout_of(axis("", tickangle=-25), scale) | grouped}


def _bars(index: int, run: Run) -> Figure:
    """One run: a bar per factor, the ideal before and the speedup behind them, in powers of two."""
    assert run.why is not None
    names, bases, heights, texts = ["ideal"], [0.0], [math.log2(run.why.ideal)], [f"{run.why.ideal:.3g}×"]
    at = run.why.ideal
    for name, factor in run.why.factors.items():
        names.append(name)
        bases.append(math.log2(at))
        heights.append(math.log2(factor))
        texts.append(f"×{factor:.2f}")
        at *= factor
    names.append("achieved")
    bases.append(0.0)
    heights.append(math.log2(at))
    texts.append(f"{at:.2f}×")
    return {
        "type": "bar",
        "name": run.label,
        "meta": index,
        "x": names,
        "base": [round(base, 6) for base in bases],
        "y": [round(height, 6) for height in heights],
        "text": texts,
        "textposition": "outside",
        "textfont": {"size": 10.5},
        "cliponaxis": False,
        "constraintext": "none",
        "marker": {"color": run.colour, "line": {"color": "--page", "width": 1}},
        "hovertemplate": "%{x}: %{text}",
    }


def why_table(runs: Sequence[Run]) -> str:
    """Every factor of every run with SD; empty where there is none."""
    if all(run.why is None for run in runs):
        return ""

    def column(read: Callable[[Waterfall], float]) -> list[float | None]:
        return [None if run.why is None else read(run.why) for run in runs]

    columns = {"ideal": column(lambda why: why.ideal)}
    columns |= {name: column(lambda why, name=name: why.factors[name]) for name in BARS}  # type: ignore[misc]
    columns["achieved"] = column(lambda why: why.speedup)
    group = Group("Speedup in mean TPOT", columns, decimals=3)
    return sortable("table-why", "Factors from the ideal to the achieved speedup", runs, [group])
