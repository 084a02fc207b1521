"""The command line: `moesd-sim [word] [overrides]`. A word chooses what to do; no word is `run`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from sim.data import data_dir, names_in

_HELP = """\
moesd-sim: predict LLM serving with speculative decoding (SD), dense and MoE.

Usage: moesd-sim [run] [group=option ...] [field=value ...] [-m group=a,b,c]

Without arguments: a MoE and a dense pair on two H200, SD off and on, under one request stream. Prints a table, writes
summary.json, requests.parquet, steps.parquet, config.yaml and report.html, and prints the folder last.

Examples:
  moesd-sim model=qwen3_30b_a3b cluster=h100 workload.rate_per_s=8
  moesd-sim model=mixtral_8x7b speculation=off cluster.tensor_parallel=2
  moesd-sim workload=azure_conversation workload.path=AzureLLMInferenceTrace_conv.csv
  moesd-sim 'models=[path/to/config.json]' speculation.drafter.model=qwen3_0_6b
  moesd-sim -m speculation.length.drafts=1,2,3,5 seed=0,1

Other words, each with its own --help:
  advise [run=bench.json] [overrides] SD on or off, drafter, draft lengths, load limits, what to paste into an engine
  compare measured.json [overrides]   a measured run (vLLM bench, GuideLLM, genai-perf) against its prediction
  study NAME [overrides]              a table over batch sizes with its figures; without NAME: what there is
  profile --model NAME --out FILE     time the kernels that the cost model prices, on this machine's GPU
  calibrate traces=FILE gpu=NAME      kernel timings in, constants of the cost model out
  calibrate run=bench.json [overrides] a benchmark of yours in, host time and a factor on kernel times out

Groups (group=option):
"""

_MORE = """
  --cfg job         print the composed configuration, every field with its default
  --info defaults   where it came from
  --hydra-help      what Hydra adds (sweeps, launchers, output folders)
"""


def main() -> None:
    """Entry point of `moesd-sim` and `python -m sim`."""
    arguments = sys.argv[1:]
    word = arguments[0] if arguments and arguments[0] in WORDS else ""
    if word in _OTHERS:
        sys.exit(_OTHERS[word](arguments[1:]))
    if any(argument in {"-h", "--help"} for argument in arguments):
        print(_HELP + _groups() + _MORE, end="")
        return
    if word:
        del sys.argv[1]
    elif arguments and "=" not in arguments[0] and not arguments[0].startswith(("-", "+", "~")):
        sys.exit(
            f"moesd-sim: unknown word {arguments[0]!r}; known: {', '.join(WORDS)}, or overrides such as model=qwen3_8b"
        )
    # Until a job runs there is nothing to write, and the libraries that start it swallow a KeyboardInterrupt.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sim import application

    application.main()


def _compare(arguments: list[str]) -> int:
    from sim.application import compose
    from sim.compare.command import main as compare

    compare(arguments, compose)
    return 0


def _study(arguments: list[str]) -> int:
    from sim.application import compose
    from sim.study.command import main as study

    return study(arguments, compose)


def _profile(arguments: list[str]) -> int:
    try:
        from sim.profiling.command import main as profile
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        sys.exit("moesd-sim profile: needs torch, which is not installed: pip install '.[profile]'")
    return profile(arguments)


def _calibrate(arguments: list[str]) -> int:
    if not any(argument.startswith("traces=") for argument in arguments):
        from sim.application import compose
        from sim.run_fit.command import main as fit

        return fit(arguments, compose)
    from sim.calibration.calibrate import main as calibrate

    return calibrate(arguments)


def _advise(arguments: list[str]) -> int:
    from sim.advise.command import main as advise
    from sim.application import compose

    return advise(arguments, compose)


_OTHERS = {"advise": _advise, "compare": _compare, "study": _study, "profile": _profile, "calibrate": _calibrate}
WORDS = ("run", *_OTHERS)


def _groups() -> str:
    """The configuration groups and their options, one line each."""
    conf = data_dir("conf")
    folders = sorted(path for path in conf.rglob("*") if path.is_dir() and names_in(path) and path.name != "study")
    return "".join(f"  {_name(folder, conf)}: {', '.join(names_in(folder))}\n" for folder in folders)


def _name(folder: Path, conf: Path) -> str:
    return folder.relative_to(conf).as_posix()
