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
    """Throughput, and where the time goes."""
    rates = {
        "requests per s": "requests_per_s",
        "tokens per s": "output_tokens_per_s",
        "per s and GPU": "output_tokens_per_s_per_gpu",
    }
    groups = [
        Group("Output", {title: [run.summary["throughput"][key] for run in runs] for title, key in rates.items()}),
        Group("Requests", {"running": [run.summary["running_requests"] for run in runs]}, decimals=1),
        Group(
            "Share of busy time (%)",
            {title: [100 * run.summary["phase_share"][phase] for run in runs] for phase, title in PHASES.items()},
            decimals=1,
        ),
    ]
    return sortable("table-throughput", "Throughput, time shares", runs, groups)


def speculation_table(runs: Sequence[Run]) -> str:
    """What SD gained and what a round takes; the terms of eq. 4, and the experts of a step."""
    accepted = {"acceptance length": "acceptance_length", "sigma": "sigma", "alpha": "alpha"}
    groups = [
        Group("Speedup", {"in mean TPOT": [run.speedup for run in runs]}),
        Group(
            "Acceptance",
            {title: [run.summary["speculation"].get(key) for run in runs] for title, key in accepted.items()},
        ),
        Group(
            "Round over plain step (eq. 4)",
            {term: [run.summary["equation_4"].get(term) for run in runs] for term in ("draft", "verify", "reject")},
        ),
        Group(
            "Target",
            {
                "efficiency": [run.target_efficiency for run in runs],
                "experts per layer": [run.summary["activated_experts"] for run in runs],
            },
        ),
    ]
    return sortable("table-speculation", "Speculation", runs, groups)


def latency_table(runs: Sequence[Run]) -> str:
    """Quantiles of TTFT, TPOT, ITL and E2E."""
    groups = []
    for name in ("ttft", "tpot", "itl", "e2e"):
        quantiles = {q: [run.summary[f"{name}_s"].get(q) for run in runs] for q in QUANTILES}
        unit, per_s = numbers.latency_unit(v for column in quantiles.values() for v in column if v is not None)
        columns = {q: [None if v is None else v * per_s for v in column] for q, column in quantiles.items()}
        groups.append(Group(f"{name.upper()} ({unit})", columns))
    if any(run.summary["transfer"] for run in runs):
        delays = [run.summary["transfer"].get("delay_s", {}) for run in runs]
        columns = {q: [None if q not in delay else 1e3 * delay[q] for delay in delays] for q in QUANTILES}
        groups.append(Group("KV transfer (ms)", columns))
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


def unserved(runs: Sequence[Run]) -> str:
    """Requests left out, ended early or sent again, by reason."""
    rows = [
        f'<tr><th scope="row">{escape(run.label)}</th><td>{escape(reason)}</td><td class="number">{count:,}</td></tr>'
        for run in runs
        for reason, count in _reasons(run).items()
    ]
    if not rows:
        return "<p>Every request of the workload was served.</p>"
    head = '<thead><tr><th scope="col">Run</th><th scope="col">Reason</th><th scope="col">Requests</th></tr></thead>'
    return (
        '<div class="scroll" role="region" aria-label="Requests left out, ended early or sent again" tabindex="0">'
        f'<table id="table-dropped">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    )


def _reasons(run: Run) -> dict[str, int]:
    """Counts, those of what did not happen left out."""
    summary = run.summary
    failures = f"{summary['outages']:,} outages, {summary['down_s']:.1f} replica-seconds"
    counts = {
        "cancelled by their clients": summary["cancelled"],
        f"lost with a replica that died ({failures})": summary["lost"],
        f"sent again after a replica died ({failures})": summary["retried"],
        "not finished when the run was interrupted": summary["open"],
    }
    return {reason: count for reason, count in (summary["dropped"] | counts).items() if count}


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
