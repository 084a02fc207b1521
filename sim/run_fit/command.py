"""`moesd-sim calibrate run=bench.json[,more.json] [fit=N] [metrics=...] [out=FILE] [overrides]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sim.compare.command import chosen
from sim.compare.sources import read_measured
from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.run_fit.calibration import calibration_of, write_run_calibration
from sim.run_fit.fit import fit_run
from sim.run_fit.tables import print_fit

Compose = Callable[..., list[Experiment]]

WORDS = ("run", "fit", "metrics", "out")
_DEFAULT_OUT = "run_calibration.yaml"
_USAGE = """\
usage: moesd-sim calibrate run=FILE[,FILE...] [fit=N] [metrics=NAME,...] [out=FILE] [overrides]
       moesd-sim calibrate traces=FILE[,FILE...] [gpu=NAME] [engine=NAME] [out=FOLDER] [kin=NAME]

From a benchmark (run=): fit host time per step and a factor on all kernel times, and predict its other load points.

run=      results of vllm bench serve, SGLang's bench_serving, GuideLLM, genai-perf or AIPerf; FILE#2 is the second run
fit=      how many of them, from the first, are fitted on; the others are predicted (default: all but one, at most two)
metrics=  what is fitted: tpot_mean, itl_p50, ttft_p50, output_tokens_per_s, ... (default: itl_p50, tpot_mean, ttft_p50)
out=      where to write the constants (default: run_calibration.yaml)
overrides describe what was served, as for moesd-sim run: model=, cluster=, engine=, scheduler.max_seqs=, speculation=

From timed kernels (traces=): fit the constants of every op family, write <gpu>_<engine>.yaml, .parquet and .html.

traces=   kernel traces (docs/kernel_traces.md), as moesd-sim profile writes them
gpu=, engine=  whose rows, where the traces hold several
out=      folder to write into (default: here)
kin=      bundled calibration that supplies what the traces do not cover (default: the nearest)

Examples:
  moesd-sim calibrate run=rate1.json,rate16.json,rate8.json model=llama31_8b cluster=h100 speculation=off
  moesd-sim calibrate traces=mine.parquet gpu=h100_sxm engine=vllm
"""


def main(arguments: Sequence[str], compose: Compose) -> int:
    """What follows the word; exit status 2 for what it cannot use.

    Args:
        arguments: words and overrides.
        compose: `sim.application.compose`, overrides -> experiments.
    """
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(_USAGE)
        return 0
    try:
        _run(arguments, compose)
    except (ValueError, FileNotFoundError, InfeasibleError) as error:
        sys.stderr.write(f"moesd-sim calibrate: {error}\n")
        return 2
    return 0


def _run(arguments: Sequence[str], compose: Compose) -> None:
    from rich.console import Console

    words, overrides = _split(arguments)
    sources = [name for name in words.get("run", "").split(",") if name]
    if not sources:
        raise ValueError(
            "name what to calibrate from: run=bench.json, a benchmark, or traces=file.parquet, timed kernels"
        )
    metrics = [name for name in words.get("metrics", "").split(",") if name]
    out = Path(words.get("out", _DEFAULT_OUT))
    count = _whole(words.get("fit", "0"))
    runs = [replace(read_measured(source), source=source) for source in sources]
    console = Console()
    with console.status("simulating the runs"):
        fit = fit_run(chosen(compose(*overrides)), runs, count, metrics)
    kept = " ".join(word for word in overrides if not word.startswith(("workload", "cost.kernel_factor")))
    command = f"moesd-sim {kept} calibration={out}".replace("  ", " ")
    write_run_calibration(calibration_of(fit, sources), out, command)
    print_fit(fit, console)
    console.print(f"Use it with: {command}", soft_wrap=True, highlight=False)


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The words of this command, and the rest."""
    words: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if sign and name in WORDS:
            words[name] = value
        elif sign or argument.startswith("~"):
            overrides.append(argument)
        else:
            raise ValueError(f"words must be {', '.join(f'{word}=' for word in WORDS)} or overrides, got {argument!r}")
    return words, overrides


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"fit must be a whole number, got {text!r}")
    return int(text)
