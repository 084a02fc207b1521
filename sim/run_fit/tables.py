"""A fit as tables for the terminal: the constants, then every run before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.compare.comparison import Statistic
from sim.run_fit.fit import RunFit
from sim.run_fit.runs import RunErrors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNITS = {"kernel_factor": ("", 1.0), "step_host_s": (" ms", 1e3)}
_FIELDS = {"kernel_factor": "cost.kernel_factor", "step_host_s": "engine.step_host_s"}
_DOUBTFUL = 0.1
_DOUBT = (
    "No two constants bring the simulation near these runs: was the measured deployment described right (GPU, tensor "
    "parallelism, engine, scheduler.max_seqs and max_batched_tokens, prefix caching, speculation)?"
)


def print_fit(fit: RunFit, console: Console) -> None:
    """Constants with their standard errors, the errors of every run, and how well the predicted ones came out."""
    console.print(_constants(fit))
    for constant in fit.constants:
        if constant.note:
            console.print(f"{_FIELDS[constant.name]} {constant.note}.", highlight=False)
    for run in fit.runs:
        console.print(_run(run, fit.metrics))
    for note in dict.fromkeys(note for run in fit.runs for note in run.notes):
        console.print(f"{note}.", style="dim", highlight=False)
    console.print(_verdict(fit), highlight=False)
    if (fit.error(fitted=True) or 0.0) > _DOUBTFUL:
        console.print(_DOUBT, style="bold", highlight=False)


def _constants(fit: RunFit) -> Table:
    table = _table("Fitted constants", "", "before", "fitted", "standard error")
    for constant in fit.constants:
        unit, scale = _UNITS[constant.name]
        error = "held" if constant.error is None else f"{constant.error * scale:.2g}{unit}"
        table.add_row(
            _FIELDS[constant.name], f"{constant.before * scale:.4g}{unit}", f"{constant.value * scale:.4g}{unit}", error
        )
    return table


def _run(run: RunErrors, metrics: tuple[str, ...]) -> Table:
    how = "fitted on" if run.fitted else "predicted"
    table = _table(f"{run.source}, {how}", "", "measured", "simulated", "error", "error before")
    for name, after in run.after.items():
        label = f"{name} *" if run.fitted and name in metrics else name
        measured, simulated = (_value(after, value) for value in (after.measured, after.simulated))
        table.add_row(label, measured, simulated, _error(after), _error(run.before.get(name)))
    return table


def _verdict(fit: RunFit) -> str:
    names = ", ".join(fit.metrics)
    found = fit.error()
    if found is None:
        return (
            f"Mean error of {names} on the runs fitted on: {fit.error(fitted=True):.1%}. Nothing was predicted: give "
            "another load point to see what the constants are worth"
        )
    return (
        f"Mean error of {names} on the predicted runs: {found:.1%} (on those fitted on: {fit.error(fitted=True):.1%})"
    )


def _value(statistic: Statistic, value: float) -> str:
    if statistic.figure == "throughput":
        return f"{value:,.2f}"
    return f"{value:,.3f} s" if statistic.figure == "e2e_s" else f"{value * 1e3:,.2f} ms"


def _error(statistic: Statistic | None) -> str:
    return "-" if statistic is None or statistic.error is None else f"{statistic.error:+.1%}"


def _table(title: str, first: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
