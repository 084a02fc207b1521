"""The tables as HTML: sortable figures of every run, requests left out, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from sim.metrics.summary import QUANTILES
from sim.report import numbers
from sim.report.figures import PHASES
from sim.report.runs import Run


@dataclass(frozen=True, slots=True)
class Group:
    """Columns under one heading.

    Attributes:
        title: the heading.
        columns: column heading -> one value per run, None where there is none.
        decimals: of every value; None for what suits each.
    """

    title: str
    columns: dict[str, list[float | None]]
    decimals: int | None = None


def throughput_table(runs: Sequence[Run]) -> str:
    """Throughput, speculation and where the time goes."""
    rates = {
        "requests per s": "requests_per_s",
        "tokens per s": "output_tokens_per_s",
        "per s and GPU": "output_tokens_per_s_per_gpu",
    }
    groups = [
        Group("Output", {title: [run.summary["throughput"][key] for run in runs] for title, key in rates.items()}),
        Group(
            "Speculation",
            {
                "TPOT speedup": [run.speedup for run in runs],
                "acceptance length": [run.acceptance_length for run in runs],
                "target efficiency": [run.target_efficiency for run in runs],
            },
        ),
        Group(
            "Share of busy time (%)",
            {title: [100 * run.summary["phase_share"][phase] for run in runs] for phase, title in PHASES.items()},
            decimals=1,
        ),
    ]
    return sortable("table-throughput", "Throughput, speculation, time shares", runs, groups)


def latency_table(runs: Sequence[Run]) -> str:
    """Quantiles of TTFT, TPOT, ITL and E2E."""
    groups = []
    for name in ("ttft", "tpot", "itl", "e2e"):
        quantiles = {q: [run.summary[f"{name}_s"].get(q) for run in runs] for q in QUANTILES}
        unit, per_s = numbers.latency_unit(v for column in quantiles.values() for v in column if v is not None)
        columns = {q: [None if v is None else v * per_s for v in column] for q, column in quantiles.items()}
        groups.append(Group(f"{name.upper()} ({unit})", columns))
    return sortable("table-latency", "Latency quantiles", runs, groups)


def sortable(name: str, caption: str, runs: Sequence[Run], groups: Sequence[Group]) -> str:
    """A table whose column headings are buttons; the page's script sorts by `data-value`."""
    first = '<th scope="col" rowspan="2" aria-sort="none"><button type="button">Run</button></th>'
    upper = "".join(f'<th scope="colgroup" colspan="{len(g.columns)}">{escape(g.title)}</th>' for g in groups)
    lower = "".join(
        f'<th scope="col" aria-sort="none"{_edge(i)}><button type="button">{escape(title)}</button></th>'
        for group in groups
        for i, title in enumerate(group.columns)
    )
    body = "".join(
        f'<tr><th scope="row" data-value="{row:04d}">{swatch(run)}{escape(run.label)}</th>'
        + "".join(
            _cell(column[row], i, group.decimals) for group in groups for i, column in enumerate(group.columns.values())
        )
        + "</tr>"
        for row, run in enumerate(runs)
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0">'
        f'<table id="{name}" class="sortable"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{first}{upper}</tr><tr>{lower}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def swatch(run: Run) -> str:
    """The run's line, as drawn in the figures."""
    dash = "" if run.dash == "solid" else ' stroke-dasharray="6 4"'
    return (
        '<svg class="swatch" width="26" height="10" aria-hidden="true">'
        f'<line x1="1" x2="25" y1="5" y2="5" stroke="var({run.colour})" stroke-width="3"{dash}/></svg>'
    )


def dropped(runs: Sequence[Run]) -> str:
    """Requests left out, by reason."""
    rows = [
        f'<tr><th scope="row">{escape(run.label)}</th><td>{escape(reason)}</td><td class="number">{count:,}</td></tr>'
        for run in runs
        for reason, count in run.summary["dropped"].items()
    ]
    if not rows:
        return "<p>No request of the workload was left out.</p>"
    head = '<thead><tr><th scope="col">Run</th><th scope="col">Reason</th><th scope="col">Requests</th></tr></thead>'
    return (
        '<div class="scroll" role="region" aria-label="Requests left out" tabindex="0">'
        f'<table id="table-dropped">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    )


def configuration(runs: Sequence[Run]) -> str:
    """The settings of every run, folded away."""
    parts = []
    for run in runs:
        rows = "".join(
            f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>'
            for key, value in run.settings.items()
        )
        parts.append(
            f"<details><summary>{swatch(run)}{escape(run.label)}</summary>"
            f'<div class="scroll"><table class="settings"><tbody>{rows}</tbody></table></div></details>'
        )
    return "".join(parts)


def _cell(value: float | None, place: int, decimals: int | None) -> str:
    data = "" if value is None else f' data-value="{value:.9g}"'
    return f'<td class="number{" edge" if place == 0 else ""}"{data}>{numbers.text(value, decimals)}</td>'


def _edge(place: int) -> str:
    return ' class="edge"' if place == 0 else ""
