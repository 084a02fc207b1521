"""The HTML page of a calibration: measured against predicted kernels, by op and size."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from sim.calibration.calibration import Calibrated
from sim.calibration.fit_family import FamilyFit
from sim.report.plain import write_page

_MOST_POINTS = 4000
_MICROSECOND = 1e-6

_SIZES = {"m": "rows", "tokens": "tokens", "width": "new tokens", "context_tokens": "cached tokens per sequence"}


def write_calibration_page(one: Calibrated, path: Path) -> Path:
    """Write the page: per family the constants with their standard errors, and two figures of held-out predictions."""
    figures: dict[str, dict[str, Any]] = {}
    parts = [_summary(one)]
    for name, fit in one.fits.items():
        figures[f"{name}-times"], figures[f"{name}-sizes"] = _times(fit), _sizes(fit)
        parts.append(_section(name, fit))
    calibration = one.calibration
    title = f"Calibration of {calibration.gpu} under {calibration.engine}"
    return write_page(path, title, "".join(parts), figures)


def _summary(one: Calibrated) -> str:
    calibration = one.calibration
    files = "".join(f"<li>{escape(name)}, SHA-256 {digest[:12]}…</li>" for name, digest in calibration.tables.items())
    aside = "".join(f"<li>{escape(reason)}: {rows} rows</li>" for reason, rows in calibration.set_aside.items())
    left = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in one.skipped.items())
    return (
        "<section><p>Every prediction below comes from a fit that did not see the kernel's shape: shapes are held out "
        "a third at a time.</p>"
        f"<h2>Measured</h2><ul>{files}</ul><h2>Set aside</h2><ul>{aside or '<li>nothing</li>'}</ul>"
        f"<h2>Taken from {escape(calibration.kin)}</h2><ul>{left or '<li>nothing</li>'}</ul></section>"
    )


def _section(name: str, fit: FamilyFit) -> str:
    quality = fit.efficiency.fit
    rows = "".join(
        f"<tr><td>{c.name}</td><td>{getattr(fit.efficiency, c.name):.4g}</td><td>{_spread(quality, c.name)}</td></tr>"
        for c in fit.form.constants
    )
    return (
        f"<section><h2>{escape(name.replace('_', ' '))}</h2><p>Error on held-out shapes {fit.error():.1%}; in sample "
        f"{quality.in_sample_error:.1%}; noise {quality.noise:.1%}; {quality.rows} rows, {quality.groups} shapes. "
        f"{escape(fit.efficiency.source)}.</p>"
        f'<div class="figures of-2"><figure><div id="fig-{name}-times" style="height:320px"></div><figcaption>'
        "Predicted against measured, held out; the line is a perfect prediction.</figcaption></figure>"
        f'<figure><div id="fig-{name}-sizes" style="height:320px"></div><figcaption>Mean signed and absolute relative '
        "error by size.</figcaption></figure></div>"
        f'<div class="scroll"><table><thead><tr><th>constant</th><th>value</th><th>standard error</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _spread(quality: Any, name: str) -> str:
    found = quality.standard_errors.get(name)
    return "on its bound" if found is None else f"{found:.2g}"


def _times(fit: FamilyFit) -> dict[str, Any]:
    measured = fit.judged.measured_s[fit.usable] / _MICROSECOND
    predicted = fit.held_out_s[fit.usable] / _MICROSECOND
    kept = np.linspace(0, len(measured) - 1, min(len(measured), _MOST_POINTS)).astype(np.int64)
    ends = [float(measured.min()), float(measured.max())]
    points = {
        "type": "scattergl", "mode": "markers", "x": _short(measured[kept]), "y": _short(predicted[kept]),
        "marker": {"size": 4, "color": "--run-0", "opacity": 0.5}, "hovertemplate": "%{x:.4g}, predicted %{y:.4g}",
    }  # fmt: skip
    line = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "line": {"color": "--faint", "dash": "dot"}}
    return _figure([points, line | {"hoverinfo": "skip"}], "measured us", "predicted us", y_type="log")


def _sizes(fit: FamilyFit) -> dict[str, Any]:
    inner = fit.form.size[0]
    size = fit.judged.rows[inner].to_numpy(np.float64)[fit.usable]
    error = (fit.held_out_s / fit.judged.measured_s - 1.0)[fit.usable]
    sizes, places = np.unique(size, return_inverse=True)
    count = np.bincount(places)
    lines = [
        {
            "type": "scatter", "mode": "lines+markers", "name": name, "x": _short(sizes),
            "y": _short(100 * np.bincount(places, values) / count), "line": {"color": colour, "width": 2},
            "hovertemplate": f"%{{x:.4g}}: {name} %{{y:.3g}} %",
        }
        for name, values, colour in (("absolute", np.abs(error), "--run-0"), ("signed", error, "--run-1"))
    ]  # fmt: skip
    return _figure(lines, _SIZES.get(inner, inner), "error %", y_type="linear")


def _figure(data: list[dict[str, Any]], x: str, y: str, y_type: str) -> dict[str, Any]:
    lines = {"gridcolor": "--grid", "zerolinecolor": "--grid", "linecolor": "--grid", "automargin": True}
    layout = {
        "xaxis": {"title": {"text": x}, "type": "log"} | lines, "yaxis": {"title": {"text": y}, "type": y_type} | lines,
        "height": 320, "margin": {"l": 8, "r": 24, "t": 24, "b": 8}, "paper_bgcolor": "--page",
        "plot_bgcolor": "--page", "font": {"family": "system-ui, sans-serif", "size": 12.5, "color": "--ink"},
        "showlegend": False, "hovermode": "closest",
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _short(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in np.asarray(values).tolist()]
