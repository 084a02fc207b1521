"""A Comparison as tables for the terminal, and the same as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sim.compare.comparison import FIGURES, Comparison, Statistic
from sim.compare.windows import Window
from sim.files import write_whole
from sim.report import numbers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WORST = 5
WHOLE_SECONDS_S = 2.0
"""Windows longer than this are named by whole seconds."""
_RATES = {"requests_per_s": "requests/s", "output_tokens_per_s": "output tokens/s", "total_tokens_per_s": "tokens/s"}
_PAGE = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Simulated against measured</title>\n'
    "<style>\n{stylesheet}\nbody {{ color: {foreground}; background-color: {background}; }}\n"
    "pre {{ font-family: monospace; overflow-x: auto; }}\n</style>\n</head>\n"
    "<body>\n<pre><code>{code}</code></pre>\n</body>\n</html>\n"
)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Errors of all statistics, the windows that cause most of them, and the notes."""
    console.print(f"{comparison.source} ({comparison.tool}) against {comparison.label}", highlight=False)
    console.print(statistics_table(comparison))
    if comparison.windows:
        for figure in ("ttft", "tpot"):
            console.print(windows_table(comparison, figure))
    for note in comparison.notes:
        console.print(f"{note}.", style="dim", highlight=False)


def write_page(comparison: Comparison, path: Path) -> None:
    """What `print_comparison` prints, as a self-contained HTML page."""
    from io import StringIO

    from rich.console import Console

    console = Console(record=True, width=140, file=StringIO(), force_terminal=False)
    print_comparison(comparison, console)
    text = console.export_html(code_format=_PAGE)
    write_whole(path, lambda whole: whole.write_text(text, encoding="utf-8"))


def statistics_table(comparison: Comparison) -> Table:
    """A row per statistic."""
    table = _table("Simulated against measured", "", "measured", "simulated", "error")
    for statistic in comparison.statistics:
        name, scale, digits = _naming(statistic)
        error = "-" if statistic.error is None else f"{statistic.error:+.1%}"
        table.add_row(name, *(f"{v * scale:,.{digits}f}" for v in (statistic.measured, statistic.simulated)), error)
    return table


def windows_table(comparison: Comparison, figure: str) -> Table:
    """The windows that add most to the error of the mean of `figure` ("ttft" or "tpot"), largest share first."""
    title = f"Where the error of the mean {figure.upper()} comes from ({WORST} of {len(comparison.windows)} windows)"
    table = _table(
        title, "window\ns", "share", "measured\nms", "simulated\nms", "in flight\nreal sim.", "\nrunning",
        "\nwaiting", "step\nms", "prefill\ntokens/s", "KV\nuse",
    )  # fmt: skip
    for window in comparison.worst(figure, WORST):
        table.add_row(*_cells(window, figure))
    return table


def _cells(window: Window, figure: str) -> list[str]:
    digits = 0 if window.end_s - window.start_s > WHOLE_SECONDS_S else 2
    return [
        f"{window.start_s:.{digits}f}-{window.end_s:.{digits}f}",
        f"{getattr(window, f'{figure}_share'):+.2%}",
        _ms(getattr(window, f"measured_{figure}_s")),
        _ms(getattr(window, f"simulated_{figure}_s")),
        f"{window.measured_in_flight:.0f} {window.simulated_in_flight:.0f}",
        f"{window.running:.1f}",
        f"{window.waiting:.1f}",
        _ms(window.step_s),
        f"{window.prefill_tokens_per_s:,.0f}",
        f"{window.kv_use:.0%}",
    ]


def _naming(statistic: Statistic) -> tuple[str, float, int]:
    """What to call it with its unit, how many of that unit make one of its own, and decimals."""
    if statistic.figure == "throughput":
        return _RATES[statistic.statistic], 1.0, 2
    unit, scale, digits = ("s", 1.0, 3) if statistic.figure == "e2e_s" else ("ms", 1e3, 2)
    return f"{FIGURES[statistic.figure]} {statistic.statistic}, {unit}", scale, digits


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else numbers.text(seconds * 1e3)


def _table(title: str, first: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
