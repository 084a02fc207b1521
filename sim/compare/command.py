"""`moesd-sim compare measured.json [overrides]`: simulate what was measured and say where the two differ."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sim.compare.comparison import WINDOWS, compare
from sim.compare.sources import TOOLS, read_measured
from sim.compare.tables import print_comparison, write_page
from sim.compare.vllm_bench_writer import write_vllm_bench
from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.files import write_whole
from sim.run import simulate
from sim.serving.ending import DeadlockError

Compose = Callable[..., list[Experiment]]


def main(arguments: Sequence[str], compose: Compose) -> None:
    """The word `compare`; what the user got wrong ends it with one line.

    Args:
        arguments: what follows the word.
        compose: `sim.application.compose`, overrides -> experiments.
    """
    parsed = _parser().parse_intermixed_args(list(arguments))
    try:
        _run(parsed, compose)
    except (ValueError, OSError, InfeasibleError, DeadlockError) as error:
        sys.exit(f"moesd-sim compare: {error}")


def chosen(experiments: list[Experiment]) -> Experiment:
    """The one experiment to compare: with speculation, if the configuration has any.

    Raises:
        ValueError: the configuration compares several models.
    """
    names = list(dict.fromkeys(experiment.model.name for experiment in experiments))
    if len(names) != 1:
        raise ValueError(f"a measured run has one model, got {', '.join(names)}; choose by model=")
    return experiments[-1]


def _run(parsed: argparse.Namespace, compose: Compose) -> None:
    from rich.console import Console

    measured = read_measured(parsed.measured)
    experiment = chosen(compose(*parsed.overrides))
    result = simulate(experiment, measured.requests())
    comparison = compare(result, measured, parsed.windows)
    print_comparison(comparison, Console())
    if parsed.json is not None:
        text = json.dumps(comparison.as_dict(), indent=1, allow_nan=False) + "\n"
        write_whole(parsed.json, lambda path: path.write_text(text))
    if parsed.html is not None:
        write_page(comparison, parsed.html)
    if parsed.save_result is not None:
        write_vllm_bench(result, parsed.save_result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moesd-sim compare",
        description="Simulate the requests of a measured run and compare every statistic.",
        epilog="Example: moesd-sim compare run.json model=llama31_8b cluster=rtx4090 speculation=off",
    )
    parser.add_argument("measured", help=f"result of {TOOLS}; file#2 is the second run in it")
    parser.add_argument("overrides", nargs="*", help="group=option or field=value, as for `moesd-sim run`")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="stretches of time to compare (%(default)s)")
    parser.add_argument("--json", type=Path, help="write statistics, windows and notes here")
    parser.add_argument("--html", type=Path, help="write the tables as a page here")
    parser.add_argument("--save-result", type=Path, help="write the simulated run as `vllm bench serve` would")
    return parser
