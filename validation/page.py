"""`docs/accuracy.md`: every figure of every suite, generated from `docs/accuracy.json`, misses first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sim.files import write_whole
from validation.checks import ANECDOTAL, Check, bound_text, number_text, write_json

PAGE = Path("docs/accuracy.md")
FIGURES = Path("docs/accuracy.json")

_TITLES = {
    "kernels": "Kernels: constants and tables against measured ones held out",
    "paper": "The MoESD paper",
    "speculation": "Published measurements of speculative decoding",
    "vllm": "Real vLLM runs, replayed",
    "run_fit": "Deployments calibrated from a benchmark of their own",
    "bands": "How often the bands hold what was measured",
    "queueing": "Queueing theory",
    "speed": "Speed of the simulator in plain Python",
    "speed_compiled": "Speed of the simulator, its serving loop compiled",
}

_INTRO = """# Accuracy

Everything `moesd-sim` prints is a prediction. This page says what it was compared with and how far off it was; it is
generated. `python -m validation SUITE... --data FOLDER --record docs` recomputes the suites named and writes it anew.
*bar* is the bound a figure has to keep, *goal* the one behind it; relative errors are fractions (0.05 is 5 %); a figure
of fewer than {few} cases is anecdotal. The docstring of each module of `validation/` says what was fitted on what.
"""


def record(checks: Sequence[Check], root: Path) -> None:
    """Replace the suites of `checks` in the recorded figures and write the page anew."""
    path = root / FIGURES.name
    known = read_figures(path) if path.exists() else []
    fresh = {check.suite for check in checks}
    merged = [*(check for check in known if check.suite not in fresh), *checks]
    order = list(_TITLES)
    merged.sort(key=lambda check: order.index(check.suite))
    write_json(merged, path)
    text = page(merged)
    write_whole(root / PAGE.name, lambda target: target.write_text(text))


def read_figures(path: Path) -> list[Check]:
    """The recorded figures."""
    rows = json.loads(path.read_text("utf-8"))["checks"]
    return [Check(**{name: value for name, value in row.items() if name != "pass"}) for row in rows]


def page(checks: Sequence[Check]) -> str:
    """The whole page."""
    missed = [check for check in checks if check.passed is False]
    parts = [_INTRO.format(few=ANECDOTAL), _overview(checks), "## What misses its bar\n"]
    parts.append(_table(missed, suite=True) if missed else "Nothing.\n")
    for suite in dict.fromkeys(check.suite for check in checks):
        parts += [f"## {_TITLES[suite]}\n", _table([c for c in checks if c.suite == suite], suite=False)]
    return "\n".join(parts)


def _overview(checks: Sequence[Check]) -> str:
    rows = []
    for suite in dict.fromkeys(check.suite for check in checks):
        own = [check for check in checks if check.suite == suite]
        judged = [check for check in own if check.passed is not None]
        kept = sum(check.passed is True for check in judged)
        goals = [check for check in own if check.reaches_goal is not None]
        reached = sum(check.reaches_goal is True for check in goals)
        rows.append((f"`{suite}`", f"{kept} of {len(judged)}", f"{reached} of {len(goals)}", str(len(own))))
    return _markdown(("suite", "bars kept", "goals reached", "figures"), rows)


def _table(checks: Sequence[Check], *, suite: bool) -> str:
    head = ("case", "metric", "value", "bar", "goal", "n", "", "note")
    rows = [
        (
            check.case, check.metric, number_text(check.value), bound_text(check.bar, check.at_least),
            bound_text(check.goal, check.at_least), str(check.n or "-"), _verdict(check), check.note,
        )
        for check in checks
    ]  # fmt: skip
    if suite:
        return _markdown(("suite", *head), [(check.suite, *row) for check, row in zip(checks, rows, strict=True)])
    return _markdown(head, rows)


def _verdict(check: Check) -> str:
    if check.reaches_goal:
        return "goal"
    return {True: "pass", False: "**miss**", None: ""}[check.passed]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |\n" for line in lines)
