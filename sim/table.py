"""The table that a job prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.metrics.summary import QUANTILES

if TYPE_CHECKING:
    from rich.table import Table

LATENCIES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E"}


def comparison_table(summaries: dict[str, dict[str, Any]]) -> Table:
    """One column per run, one row per figure."""
    from rich.table import Table

    table = Table(title="Predicted serving performance", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("")
    for label in summaries:
        table.add_column(label.replace(", ", "\n"), justify="right")
    for name, cells in _rows(list(summaries.values())):
        table.add_row(name, *cells)
    return table


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
    rows += [
        ("speedup by SD (TPOT)", [_number(run.get("speedup", {}).get("tpot"), "x") for run in runs]),
        ("speedup by SD (E2E)", [_number(run.get("speedup", {}).get("e2e"), "x") for run in runs]),
        ("acceptance length", [_number(run["speculation"].get("acceptance_length")) for run in runs]),
        ("target efficiency", [_number(run["target_efficiency"]) for run in runs]),
        ("activated experts", [_number(run["activated_experts"], digits=1) for run in runs]),
        ("running requests", [_number(run["running_requests"], digits=1) for run in runs]),
    ]
    phases = runs[0]["phase_share"] if runs else {}
    rows += [(f"time in {phase}", [f"{run['phase_share'][phase]:.1%}" for run in runs]) for phase in phases]
    if any(run["dropped"] for run in runs):
        rows.append(("requests left out", [str(sum(run["dropped"].values())) for run in runs]))
    if any(run["preemptions"] for run in runs):
        rows.append(("preemptions", [str(run["preemptions"]) for run in runs]))
    return rows


def _number(value: float | None, unit: str = "", scale: float = 1.0, digits: int = 2) -> str:
    return "-" if value is None else f"{value * scale:,.{digits}f}{unit}"
