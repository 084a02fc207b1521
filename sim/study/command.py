"""`moesd-sim study NAME [overrides]`: run a study of `conf/study/`, write its table and its page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.files import write_whole
from sim.serving.ending import DeadlockError
from sim.study.page import write_study
from sim.study.peaks import peaks
from sim.study.settings import MODES, Study, overrides_of, read_study, study_names
from sim.study.table import Row, rows

Compose = Callable[..., list[Experiment]]

_INTERRUPTED = 130


def main(arguments: Sequence[str], compose: Compose) -> int:
    """The word `study`; what the user got wrong ends it with one line.

    Args:
        arguments: what follows the word.
        compose: `sim.application.compose`, overrides -> experiments.
    """
    parsed = _parser().parse_intermixed_args(list(arguments))
    if not parsed.names:
        sys.stdout.write("".join(f"{name}: {read_study(name).title}\n" for name in study_names()))
        return 0
    named = [name for name in parsed.names if "=" not in name]
    more = [name for name in parsed.names if "=" in name]
    try:
        for name in study_names() if named == ["all"] else named:
            study = read_study(name, parsed.no_simulation)
            sys.stdout.write(f"{run(name, study, parsed.mode, more, compose, _folder(parsed.out, name))}\n")
    except (ValueError, OSError, InfeasibleError, DeadlockError) as error:
        sys.exit(f"moesd-sim study: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("moesd-sim study: interrupted; what has a folder is whole\n")
        return _INTERRUPTED
    return 0


def run(name: str, study: Study, mode: str, more: Sequence[str], compose: Compose, folder: Path) -> Path:
    """Run one study, write `table.csv`, `table.parquet`, `report.html` and, last, `summary.json` into `folder`."""
    table = rows(study, mode, lambda case: compose(*overrides_of(mode, case, more)))
    found = peaks(table, list(study.axes))
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(table, folder)
    write_study(study, table, found, folder / "report.html")
    content = {
        "study": name, "title": study.title, "mode": mode, "overrides": list(more), "rows": len(table), "cases": found,
    }  # fmt: skip
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_whole(folder / "summary.json", lambda path: path.write_text(text))
    return folder


def _write_table(table: list[Row], folder: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(table)
    write_whole(folder / "table.csv", partial(frame.to_csv, index=False, float_format="%.9g"))
    write_whole(folder / "table.parquet", partial(frame.to_parquet, index=False))


def _folder(out: Path | None, name: str) -> Path:
    if out is not None:
        return out / name
    return Path("outputs") / datetime.now().astimezone().strftime("%Y-%m-%d/%H-%M-%S") / name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moesd-sim study",
        description="Run studies: a table over batch sizes, figures, where SD gains most. Without a name: list them.",
        epilog="Example: moesd-sim study moesd_batch cluster=h100 --mode served",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(study_names())}, or all; overrides as for `moesd-sim run`"
    )
    parser.add_argument("--mode", choices=list(MODES), default="static", help="how batches are served (%(default)s)")
    parser.add_argument("--no-simulation", action="store_true", help="price batches only, simulate none")
    parser.add_argument("--out", type=Path, help="folder for the results (outputs/DATE/TIME)")
    return parser
