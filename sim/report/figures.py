"""The figures as plain plotly dicts; colours name the style sheet's custom properties (`--ink`), set by the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.metrics.curves import batch_curves, mean_context_tokens
from sim.metrics.summary import Times, last_end_s
from sim.report import numbers, series
from sim.report.plot import Figure, axis, layout_of, short
from sim.report.ribbon import ribbon
from sim.report.runs import Run
from sim.report.series import Column

PHASES = {
    "prefill": "prefill",
    "draft": "draft",
    "verify": "verify, decode",
    "reject": "reject, sample",
    "host": "host",
}
"""Phases of `StepCost.phases`, as the report calls them."""

MOST_BATCHES = 300


def all_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Figure id -> figure, without those that would be empty."""
    made = {**latency_figures(runs), **history_figures(runs), "phases": phase_figure(runs), **batch_figures(runs)}
    return {name: figure for name, figure in made.items() if figure["data"]}


def latency_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """CDFs of TTFT, TPOT and E2E, one trace per run."""
    figures = {}
    for name in ("ttft", "tpot", "e2e"):
        curves = [series.ecdf(_latency_s(run, name)) for run in runs]
        unit, per_s = numbers.latency_unit(float(x[-1]) for x, _ in curves if x.size)
        data = [
            _line(index, run, seconds * per_s, share, "%{x:.4g} " + unit + ": %{y:.1%}", shape="hv")
            for index, (run, (seconds, share)) in enumerate(zip(runs, curves, strict=True))
            if seconds.size
        ]
        x = axis(f"{name.upper()} ({unit})", type="log", dtick="D2" if _decades(curves) < 2.5 else 1)
        figures[name] = {"data": data, "layout": layout_of(x, axis("Share of requests", tickformat=".0%"))}
    return figures


def history_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Throughput, running and waiting requests over time, in bins that all runs share."""
    end_s = max(last_end_s(Times.of(run.result.recorder), run.result.recorder) for run in runs)
    edges_s = np.linspace(0.0, end_s, series.MOST_BINS + 1)
    unit, per_unit = numbers.clock_unit(end_s)
    middle = (edges_s[:-1] + edges_s[1:]) / 2 * per_unit
    histories = [series.history(run.result, edges_s) for run in runs]
    titles = {"output_tokens": "Output tokens per s", "running": "Requests running", "waiting": "Requests waiting"}
    figures = {}
    for name, title in titles.items():
        data = [
            _line(index, run, middle, _per_s(h[name], edges_s) if name == "output_tokens" else h[name], width=1.4)
            for index, (run, h) in enumerate(zip(runs, histories, strict=True))
        ]
        layout = layout_of(axis(f"Time ({unit})"), axis(title, rangemode="tozero"))
        figures["throughput" if name == "output_tokens" else name] = {"data": data, "layout": layout}
    return figures


def phase_figure(runs: Sequence[Run]) -> Figure:
    """Shares of busy time, one stacked bar per run."""
    rows = [run.label.replace(", ", "<br>", 1) for run in runs]
    data = []
    for phase, title in PHASES.items():
        share = np.asarray([run.summary["phase_share"][phase] for run in runs])
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": title,
                "y": rows,
                "x": short(share),
                "text": [f"{value:.0%}" if value >= 0.06 else "" for value in share.tolist()],
                "textangle": 0,
                "textposition": "inside",
                "insidetextanchor": "middle",
                "insidetextfont": {"color": "--on-phase"},
                "marker": {"color": f"--phase-{phase}", "line": {"color": "--page", "width": 1}},
                "hovertemplate": title + ": %{x:.1%}<extra>%{y}</extra>",
            }
        )
    layout = layout_of(axis("Share of busy time", tickformat=".0%", range=[0, 1]), axis("", autorange="reversed"))
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
    bars = {"barmode": "stack", "bargap": 0.35, "showlegend": True, "legend": legend, "height": 130 + 58 * len(runs)}
    return {"data": data, "layout": layout | bars}


def batch_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Speedup, target efficiency and activated experts over the batch size, for the runs with SD."""
    speedup: list[Figure] = []
    efficiency: list[Figure] = []
    experts: list[Figure] = []
    for index, run in enumerate(runs):
        if run.acceptance_length is None:
            continue
        curves = curves_of(run, run.acceptance_length)
        batch = curves["batch"]
        context = mean_context_tokens(run.result.recorder.blocks())
        speedup += ribbon(index, run, context, batch, curves["speedup"])
        for data, name in ((speedup, "speedup"), (efficiency, "target_efficiency")):
            data.append(_line(index, run, batch, curves[name], "%{y:.2f}"))
            data.append(_operating_point(index, run, batch, curves[name]))
        if run.result.cost.target.model.is_moe:
            width = run.result.cost.width
            verify = _line(index, run, batch, curves["experts_verify"], "%{y:.1f}")
            plain = _line(index, run, batch, curves["experts_plain"], "%{y:.1f}")
            experts.append(verify | {"name": f"{run.label}: verify, {width} tokens per sequence"})
            plain["line"] |= {"dash": "dot"}
            experts.append(plain | {"name": f"{run.label}: 1 token per sequence"})
    x = axis("Batch (sequences)", type="log", tickvals=[2**k for k in range(13)])
    unified = {"hovermode": "x unified"}
    shapes = {"shapes": [_level(1.0)]}
    drawn = {
        "speedup": (speedup, "Speedup over no SD", shapes),
        "efficiency": (efficiency, "Target efficiency", shapes),
        "experts": (experts, "Experts per layer", {}),
    }
    return {
        name: {"data": data, "layout": layout_of(x, axis(title, rangemode="tozero")) | unified | more}
        for name, (data, title, more) in drawn.items()
    }


def curves_of(run: Run, acceptance_length: float) -> dict[str, Column]:
    """Batch curves at the run's mean context, as far as its scheduler and its KV pool allow."""
    result = run.result
    context = mean_context_tokens(result.recorder.blocks())
    blocks_each = result.kv.blocks_for(context + result.cost.width)
    most = max(1, min(result.experiment.scheduler.max_seqs, result.kv.blocks // blocks_each))
    batches = np.unique(np.rint(np.geomspace(1, most, MOST_BATCHES)).astype(np.int64))
    return batch_curves(result.cost, context, acceptance_length, batches)


def _latency_s(run: Run, name: str) -> Column:
    times = Times.of(run.result.recorder)
    return {"ttft": times.ttft_s, "tpot": times.tpot_s(run.result.requests.output_tokens), "e2e": times.e2e_s}[name]


def _decades(curves: Sequence[tuple[Column, Column]]) -> float:
    ends = [(x[0], x[-1]) for x, _ in curves if x.size and x[0] > 0]
    return float(np.log10(max(e for _, e in ends) / min(s for s, _ in ends))) if ends else 0.0


def _per_s(counts: Column, edges_s: Column) -> Column:
    return counts / np.diff(edges_s)


def _line(
    index: int, run: Run, x: Column, y: Column, hover: str = "%{y:.4g}", shape: str = "linear", width: float = 2
) -> Figure:
    """A trace of a run; `meta` is the run's number, by which the page shows and hides it."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": run.label,
        "meta": index,
        "x": short(x),
        "y": short(y),
        "line": {"color": run.colour, "dash": run.dash, "width": width, "shape": shape},
        "hovertemplate": hover,
    }


def _operating_point(index: int, run: Run, batch: Column, curve: Column) -> Figure:
    """Where on its curve the run was, on the average."""
    mean = float(np.clip(run.summary["running_requests"], batch[0], batch[-1]))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": run.label,
        "meta": index,
        "x": short(np.asarray([mean])),
        "y": short(np.interp([mean], batch, curve)),
        "marker": {"color": run.colour, "size": 10, "line": {"color": "--page", "width": 2}},
        "hoverinfo": "skip",
    }


def _level(y: float) -> Figure:
    line = {"color": "--faint", "width": 1.5, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, "layer": "below"}
