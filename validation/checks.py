"""The one format of every suite: a figure, the bar it must reach and the goal behind it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sim.files import write_whole

ANECDOTAL = 20
"""Fewer cases than this are called anecdotal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One figure of accuracy or speed.

    Attributes:
        suite, case, metric: what was judged, on what, and how (units in the name).
        value: the figure; None where it could not be computed, and `note` says why.
        bar: the bound it must keep: the most it may be, or the least where `at_least`; None: reported only.
        goal: the figure to aim for behind the bar.
        n: cases behind the figure.
        at_least: larger is better.
        note: what was fitted on what, what was left out, why it misses.
    """

    suite: str
    case: str
    metric: str
    value: float | None
    bar: float | None = None
    goal: float | None = None
    n: int = 0
    at_least: bool = False
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the bar is kept; None where there is no bar or no figure."""
        return self._within(self.bar)

    @property
    def reaches_goal(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        return self._within(self.goal)

    def _within(self, bound: float | None) -> bool | None:
        if bound is None or self.value is None or math.isnan(self.value):
            return None
        return self.value >= bound if self.at_least else self.value <= bound

    def as_dict(self) -> dict[str, Any]:
        """Plain fields, with `pass`."""
        return asdict(self) | {"pass": self.passed}


def write_json(checks: Sequence[Check], path: Path) -> None:
    """Write `{"checks": [...]}`."""
    text = json.dumps({"checks": [check.as_dict() for check in checks]}, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda target: target.write_text(text))


def print_table(checks: Sequence[Check]) -> None:
    """Every check, a line each, and below the notes."""
    from rich.console import Console
    from rich.table import Table

    table = Table("suite", "case", "metric", "value", "bar", "goal", "n", "", show_edge=False)
    for check in checks:
        verdict = {True: "pass", False: "[bold]MISS[/bold]", None: "-"}[check.passed]
        if check.reaches_goal:
            verdict = "goal"
        few = " (anecdotal)" if 0 < check.n < ANECDOTAL else ""
        table.add_row(
            check.suite, check.case, check.metric, number_text(check.value), bound_text(check.bar, check.at_least),
            bound_text(check.goal, check.at_least), f"{check.n}{few}", verdict,
        )  # fmt: skip
    console = Console()
    console.print(table)
    for check in checks:
        if check.note:
            console.print(f"{check.suite}, {check.case}, {check.metric}: {check.note}", style="dim", markup=False)


def number_text(value: float | None) -> str:
    """Four digits of a figure."""
    return "-" if value is None else f"{value:.4g}"


def bound_text(value: float | None, at_least: bool) -> str:
    """A bar or goal, with its direction."""
    return "-" if value is None else f"{'>=' if at_least else '<='} {value:g}"
