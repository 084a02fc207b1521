"""The page of a study: its panels, and the table of peaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from sim.report import numbers
from sim.report.plain import write_page
from sim.report.plot import Figure, axis, layout_of
from sim.report.runs import COLOURS
from sim.study.settings import Panel, Study

TITLES = {
    "batch": "Batch (sequences)",
    "speedup": "Speedup over no SD",
    "simulated_speedup": "Speedup over no SD",
    "target_efficiency": "Target efficiency",
    "experts_plain": "Experts per layer",
    "experts_verify": "Experts per layer",
    "tokens_per_expert": "Tokens per activated expert",
    "tokens_per_expert_verify": "Tokens per activated expert",
    "rho": "rho = K / E",
    "draft_term": "Draft over plain step",
    "verify_term": "Verification over plain step",
}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "diamond", "square", "cross", "x")
_COLUMNS = "grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr))"
Rows = Sequence[dict[str, Any]]


def write_study(study: Study, rows: Rows, peaks: Rows, path: Path) -> Path:
    """Write the page and return where."""
    figures = {f"panel-{i}": figure(study, panel, rows) for i, panel in enumerate(study.panels)}
    drawn = "".join(
        f'<figure><div id="fig-{name}" style="height:{made["layout"]["height"]}px"></div>'
        f"<figcaption>{escape(panel.title)}</figcaption></figure>"
        for (name, made), panel in zip(figures.items(), study.panels, strict=True)
    )
    gains = any(panel.y == "speedup" for panel in study.panels)
    body = (
        f'<p class="predicted"><strong>Predicted, not measured.</strong> {escape(study.shows)}</p>'
        '<p class="note">Lines are priced batches, every sequence halfway through its output; markers in the colour of '
        "a line are simulated, request by request.</p>"
        f'<section><div class="figures" style="{_COLUMNS}">{drawn}</div></section>'
        + (f"<section><h2>Where SD gains most</h2>{_table(peaks)}</section>" if gains else "")
    )
    return write_page(path, study.title, body, figures)


def figure(study: Study, panel: Panel, rows: Rows) -> Figure:
    """One panel: a line per combination of the axes that it leaves open."""
    shown = [row for row in rows if all(str(row[name]) in values for name, values in panel.where.items())]
    across = panel.x if panel.x in study.axes else None
    open_axes = [name for name in study.axes if name != across and len({row[name] for row in shown}) > 1]
    if panel.x not in {"batch", across}:
        shown, open_axes = [row for row in shown if row["batch"] in panel.at], ["batch"]
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in shown:
        lines.setdefault(tuple(row[name] for name in open_axes), []).append(row)
    values = [list(dict.fromkeys(key[i] for key in lines)) for i in range(len(open_axes))]
    data: list[Figure] = []
    for key, line in lines.items():
        place = [values[i].index(key[i]) for i in range(len(key))] + [0, 0]
        name = ", ".join(_named(*pair) for pair in zip(open_axes, key, strict=True))
        chosen = _peaks(line, across) if panel.peak and across else line
        data += _traces(panel, chosen, name or panel.title, place, bars=bool(across))
    x = axis(TITLES.get(panel.x, panel.x), **_scale(panel, across))
    shapes = [_level(panel.level)] if panel.level is not None else []
    legend = {"orientation": "h", "y": -0.18, "yanchor": "top", "x": 0}
    height = 400 + 11 * len(lines)
    more = {"showlegend": len(lines) > 1, "legend": legend, "height": height, "shapes": shapes, "barmode": "group"}
    y = axis(TITLES.get(panel.y, panel.y), rangemode="tozero")
    return {"data": data, "layout": layout_of(x, y) | more}


def _traces(panel: Panel, rows: Rows, name: str, place: list[int], bars: bool) -> list[Figure]:
    colour, dash = f"--run-{place[0] % COLOURS}", place[1]
    rows = rows if bars else sorted(rows, key=lambda row: float(row[panel.x]))
    x, y = [row[panel.x] for row in rows], [_number(row[panel.y]) for row in rows]
    common = {"name": name, "legendgroup": name, "hovertemplate": "%{x}: %{y:.3f}"}
    if bars:
        pattern = {"shape": ("", "/", "x", ".", "-")[dash % 5]}
        return [{"type": "bar", "x": x, "y": y, "marker": {"color": colour, "pattern": pattern}} | common]
    line = {"color": colour, "dash": _DASHES[dash % len(_DASHES)], "width": 2}
    traces: list[Figure] = [{"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line} | common]
    simulated = [(row[panel.x], _number(row["simulated_speedup"])) for row in rows if row["simulated_speedup"]]
    if panel.y == "speedup" and simulated:
        marker = {"color": colour, "size": 9, "symbol": _SYMBOLS[dash % len(_SYMBOLS)]}
        points = {"type": "scatter", "mode": "markers", "marker": marker, "showlegend": False}
        traces.append(common | points | {"x": [a for a, _ in simulated], "y": [b for _, b in simulated]})
    if panel.band:
        heights = [value for value in y if value is not None]
        edge = max(heights) / 2**0.5
        inside = [a for a, b in zip(x, y, strict=True) if b is not None and b >= edge]
        band = {"type": "scatter", "mode": "lines", "line": {"color": colour, "width": 1, "dash": "dot"}}
        traces.append(common | band | {"showlegend": False, "x": [inside[0], inside[-1]], "y": [_number(edge)] * 2})
    return traces


def _named(axis_name: str, value: object) -> str:
    """A number with its axis, a name as it is."""
    return f"{axis_name} {value}" if str(value).replace(".", "", 1).isdigit() else str(value)


def _peaks(rows: Rows, across: str) -> list[dict[str, Any]]:
    """Of every value of the axis, the row with the largest speedup."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row[across] not in best or row["speedup"] > best[row[across]]["speedup"]:
            best[row[across]] = row
    return list(best.values())


def _scale(panel: Panel, across: str | None) -> Figure:
    if across:
        return {"type": "category"}
    return {"type": "log", "tickvals": [2**k for k in range(13)]} if panel.x == "batch" else {}


def _level(y: float) -> Figure:
    line = {"color": "--faint", "width": 1.5, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, "layer": "below"}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(f"{value:.6g}")


def _table(peaks: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in peaks[0])
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(value)}</td>" if isinstance(value, str) else f'<td class="number">{_text(value)}</td>'
            for value in row.values()
        )
        + "</tr>"
        for row in peaks
    )
    return (
        '<div class="scroll" role="region" aria-label="Peaks" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else numbers.text(value, 2)
