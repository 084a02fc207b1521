"""Advice for the terminal."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from sim.advise.advice import NO_SD, Advice, DrafterReport
from sim.advise.bands import Band
from sim.advise.contest import drafts_in_words
from sim.advise.document import exported_sglang, exported_vllm
from sim.advise.surfaces import Grid, Surfaces
from sim.advise.verdict import crossover, notes, paying, verdict
from sim.result import Result
from sim.speculation.batch_length import TableByBatch

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_GIB = 2.0**30
_MOST_COLUMNS = 9


def print_advice(advice: Advice, console: Console) -> None:
    """Verdict, candidates, where it holds, what the drafters cost, what to paste, notes."""
    console.print(verdict(advice), style="bold", highlight=False)
    console.print(f"Simulated at {advice.load}:", highlight=False)
    console.print(candidates_table(advice))
    for label, why in advice.contest.infeasible.items():
        console.print(f"{label} cannot run: {why}", highlight=False)
    for report in advice.drafters:
        _print_drafter(advice, report, console)
    for line in crossover(advice):
        console.print(f"Load, {line}.", highlight=False)
    _print_exports(advice, console)
    for note in notes(advice):
        console.print(f"{note}.", style="dim", highlight=False)


def candidates_table(advice: Advice) -> Table:
    """What was simulated at the stream's load, and how much better than without SD it is."""
    table = _table("", "TPOT\nms", "E2E\ns", "output\ntokens/s", "gain\nTPOT", "gain\nE2E",
                   "gain\ntokens/s", f"band of the gain\n{advice.contest.objective}")  # fmt: skip
    runs: list[tuple[str, Result, dict[str, float]]] = [(NO_SD, advice.contest.plain, {})]
    runs += [(entry.label, entry.result, entry.gain) for entry in advice.contest.entries]
    for label, result, gain in runs:
        summary = result.summary()
        band = advice.gains.get(label, {}).get(advice.contest.objective)
        mark = " <-" if advice.advised is not None and label == advice.advised.label else ""
        table.add_row(
            label + mark,
            _number(summary["tpot_s"].get("mean"), 1e3),
            _number(summary["e2e_s"].get("mean")),
            f"{summary['throughput']['output_tokens_per_s']:,.0f}",
            *(_number(gain.get(figure)) for figure in ("tpot", "e2e", "throughput")),
            "" if band is None else f"{band.low:.2f} to {band.high:.2f}",
        )
    return table


def figures_table(advice: Advice, measured: dict[str, float]) -> Table:
    """Predictions with bands beside what a run measured without SD."""
    table = _table("", "TPOT, ms", "E2E, s", "output tokens/s")
    scales = {"tpot": (1e3, 2), "e2e": (1.0, 2), "throughput": (1.0, 0)}
    if measured:
        cells = [_scaled(measured.get(name), *scales[name]) for name in scales]
        table.add_row("no SD, measured", *cells)
    for label, bands in advice.figures.items():
        table.add_row(label, *(_banded(bands.get(name), *scale) for name, scale in scales.items()))
    return table


def needed_table(report: DrafterReport) -> Table:
    """What acceptance a drafter needs under the stream, by simulation."""
    table = _table("drafts", "tokens\nper round", "rate\nalpha", "gain if all\nare accepted")
    for found in report.needed:
        table.add_row(str(found.drafts), _number(found.length), _number(found.rate), f"{found.most_gain:.2f}")
    return table


def grid_table(surfaces: Surfaces, grid: Grid, digits: int) -> Table:
    """A surface: contexts down, batches across; a dash where the batch does not fit into the KV pool."""
    kept = _spread_out(len(surfaces.batches))
    table = _table("context", *(f"{surfaces.batches[i]}" for i in kept))
    for context, row in zip(surfaces.contexts, grid, strict=True):
        table.add_row(f"{context:,}", *("-" if (value := row[i]) is None else f"{value:.{digits}f}" for i in kept))
    return table


def _print_drafter(advice: Advice, report: DrafterReport, console: Console) -> None:
    name, surfaces, memory = report.drafted.name, report.surfaces, report.memory
    if surfaces is None or memory is None:
        console.print(f"{name} cannot run: {report.infeasible}", highlight=False)
        return
    drafts = shown_drafts(advice, report)
    even = "breaks even" if drafts == 1 else "break even"
    heading = f"{name}: acceptance length at which {drafts_in_words(drafts)} {even}, by context and batch (-: KV full)"
    console.print(heading, highlight=False)
    console.print(grid_table(surfaces, surfaces.break_even[drafts], 2))
    if report.drafted.acceptance_known:
        console.print(f"{name}: best draft length, 0 for SD off", highlight=False)
        console.print(grid_table(surfaces, surfaces.best_drafts, 0))
        console.print(
            f"{name} pays {paying(report)} of decoding sequences at {advice.context_tokens:,} tokens of context "
            f"(acceptance {report.drafted.acceptance_source}).", highlight=False
        )  # fmt: skip
    else:
        console.print(f"{name}: acceptance it needs at this load, by simulation", highlight=False)
        console.print(needed_table(report))
    share = memory.pool_tokens / memory.plain_pool_tokens - 1.0
    console.print(
        f"{name} takes {memory.weight_bytes / _GIB:.2f} GiB of weights on a GPU and "
        f"{memory.token_bytes / 1024:.1f} KiB of KV per token beside the target's "
        f"{memory.target_token_bytes / 1024:.1f}; the KV pool holds {memory.pool_tokens:,} tokens instead of "
        f"{memory.plain_pool_tokens:,} ({share:+.0%}).", highlight=False
    )  # fmt: skip


def shown_drafts(advice: Advice, report: DrafterReport) -> int:
    """The draft length whose break-even surface is shown: the best fixed one at the load, else three or the most."""
    fixed = [
        entry for entry in advice.contest.entries
        if entry.drafted.name == report.drafted.name and not isinstance(entry.length, TableByBatch)
    ]  # fmt: skip
    if fixed:
        return max(fixed, key=lambda entry: entry.gain[advice.contest.objective]).length.most_drafts
    return min(3, report.drafted.experiment.drafts)


def _print_exports(advice: Advice, console: Console) -> None:
    vllm, sglang = exported_vllm(advice), exported_sglang(advice)
    if vllm is not None:
        text = f"vLLM: --speculative-config {shlex.quote(json.dumps(vllm))}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    elif advice.advised is not None:
        console.print("vLLM: drafts no trees; use SGLang, or a chain of drafts.", highlight=False)
    if sglang is not None:
        console.print(f"SGLang: {shlex.join(sglang)}", soft_wrap=True, highlight=False, markup=False)


def _spread_out(columns: int) -> list[int]:
    if columns <= _MOST_COLUMNS:
        return list(range(columns))
    step = (columns - 1) / (_MOST_COLUMNS - 1)
    return [round(i * step) for i in range(_MOST_COLUMNS)]


def _banded(band: Band | None, scale: float, digits: int) -> str:
    if band is None:
        return "-"
    low, value, high = (f"{scale * x:,.{digits}f}" for x in (band.low, band.value, band.high))
    return f"{value} ({low} to {high})"


def _scaled(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{scale * value:,.{digits}f}"


def _number(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{scale * value:,.2f}"


def _table(first: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
