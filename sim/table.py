"""The table that a job prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.metrics.summary import QUANTILES

if TYPE_CHECKING:
    from rich.table import Table

EVENTS = {
    "preemptions": "preemptions",
    "cancelled": "requests cancelled",
    "lost": "requests lost",
    "open": "requests not finished",
    "retried": "requests sent again",
    "wasted_tokens": "tokens wasted",
    "outages": "outages",
}
"""Counts of a summary that get a row where there are any."""

LATENCIES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E"}

_BANDS = (
    ("output tokens/s", "throughput", "output_tokens_per_s", 1.0, 0),
    ("TTFT p50, ms", "ttft_s", "p50", 1e3, 1),
    ("TPOT p50, ms", "tpot_s", "p50", 1e3, 1),
    ("ITL p50, ms", "itl_s", "p50", 1e3, 1),
    ("E2E p50, s", "e2e_s", "p50", 1.0, 1),
    ("speedup by SD (TPOT)", "speedup", "tpot", 1.0, 2),
)
"""Rows of the table of bands: name, figure and statistic of the summary, scale, decimals."""


def comparison_table(summaries: dict[str, dict[str, Any]]) -> Table:
    """One column per run, one row per figure."""
    from rich.table import Table

    table = Table(title="Predicted serving performance", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("")
    for label, run in summaries.items():
        table.add_column(label.replace(", ", "\n") + ("\n(partial)" if run["partial"] else ""), justify="right")
    for name, cells in _rows(list(summaries.values())):
        table.add_row(name, *cells)
    return table


def bands_table(summaries: dict[str, dict[str, Any]]) -> Table | None:
    """Low and high end of the headline figures, one column per run; None where no run has bands."""
    from rich.table import Table

    runs = [run.get("bands", {}) for run in summaries.values()]
    if not any(runs):
        return None
    level = next(bands["level"] for bands in runs if bands)
    table = Table(title=f"{level:.0%} bands", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("")
    for label in summaries:
        table.add_column(label.replace(", ", "\n"), justify="right")
    for name, figure, statistic, scale, digits in _BANDS:
        table.add_row(name, *(_ends(bands.get(figure, {}).get(statistic), scale, digits) for bands in runs))
    return table


def _ends(ends: list[float] | None, scale: float, digits: int) -> str:
    return "-" if ends is None else " - ".join(f"{end * scale:,.{digits}f}" for end in ends)


def _rows(runs: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    rows = [
        ("output tokens/s", [f"{run['throughput']['output_tokens_per_s']:,.0f}" for run in runs]),
        ("requests/s", [f"{run['throughput']['requests_per_s']:.2f}" for run in runs]),
    ]
    for key, name in LATENCIES.items():
        unit, scale = ("s", 1.0) if key == "e2e_s" else ("ms", 1e3)
        rows += [
            (f"{name} {quantile}, {unit}", [_number(run[key].get(quantile), scale=scale, digits=1) for run in runs])
            for quantile in QUANTILES
        ]
    if any(run["transfer"] for run in runs):
        delays = [run["transfer"].get("delay_s", {}) for run in runs]
        rows += [
            (f"KV transfer {quantile}, ms", [_number(delay.get(quantile), scale=1e3, digits=1) for delay in delays])
            for quantile in QUANTILES
        ]
    rows += [
        ("speedup by SD (TPOT)", [_number(run.get("speedup", {}).get("tpot"), "x") for run in runs]),
        ("speedup by SD (E2E)", [_number(run.get("speedup", {}).get("e2e"), "x") for run in runs]),
        ("sigma", [_number(run["speculation"].get("sigma")) for run in runs]),
        ("alpha", [_number(run["speculation"].get("alpha")) for run in runs]),
        ("acceptance length", [_number(run["speculation"].get("acceptance_length")) for run in runs]),
        ("target efficiency", [_number(run["target_efficiency"]) for run in runs]),
        ("activated experts", [_number(run["activated_experts"], digits=1) for run in runs]),
        ("running requests", [_number(run["running_requests"], digits=1) for run in runs]),
    ]
    phases = runs[0]["phase_share"] if runs else {}
    rows += [(f"time in {phase}", [f"{run['phase_share'][phase]:.1%}" for run in runs]) for phase in phases]
    if any(run["dropped"] for run in runs):
        rows.append(("requests left out", [str(sum(run["dropped"].values())) for run in runs]))
    rows += [(name, [f"{run[key]:,}" for run in runs]) for key, name in EVENTS.items() if any(run[key] for run in runs)]
    return rows


def _number(value: float | None, unit: str = "", scale: float = 1.0, digits: int = 2) -> str:
    return "-" if value is None else f"{value * scale:,.{digits}f}{unit}"
