"""`moesd-sim advise [words] [overrides]`: compose, advise, print, write, say where."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.advise.advice import Advice, advise
from sim.advise.arguments import Arguments, parse
from sim.advise.contest import Drafted, drafts_in_words
from sim.advise.counterfactual import Served, served
from sim.advise.document import as_dict, exported_sglang, exported_vllm
from sim.advise.exports import vllm_command, vllm_config
from sim.advise.page import write_advice_page
from sim.advise.static import speculation_of, with_drafts
from sim.advise.tables import figures_table, print_advice
from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.files import write_whole
from sim.hardware import resolve
from sim.serving.ending import DeadlockError
from sim.speculation.length import Fixed

if TYPE_CHECKING:
    from rich.console import Console

Compose = Callable[..., list[Experiment]]

INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C ended: 128 + SIGINT."""

DEFAULT_DRAFTER = "drafter"
"""What the configuration's own is called where no override chooses one."""

LEAST_CONSIDERED = 5
"""Draft lengths considered go at least so far: the best of published sweeps lie at 5 or below, but at batch 1."""

_USAGE = """\
usage: moesd-sim advise [drafters=NAME,...] [acceptance=...] [most=N] [run=FILE,...] [out=FOLDER] [overrides]

SD on or off, the best drafter and draft lengths, the load at which SD turns negative, break-even acceptance lengths,
gains with bands, what the drafter costs, and what to paste into vLLM or SGLang. Everything is predicted.

drafters=    options of the group speculation to choose from (default: the configuration's own);
             NAME.field=... and NAME/acceptance=... set one drafter's fields
acceptance=  given (default): a gain is claimed for drafters whose acceptance an override names; preset: for all;
             unknown: for none. Without it the answer is the acceptance length from which SD pays
most=        longest draft length considered (default: 5, or speculation.length where that is longer)
run=         benchmarks of your server without SD (vllm bench serve --save-result, SGLang, GuideLLM, genai-perf): the
             deployment is fitted to them, and the advice is for the requests of the first
fit=         how many of them are fitted on (default: all but one, at most two)
out=         folder to write into (default: a new one under outputs/)
overrides    describe what is served, as for moesd-sim run: model=, cluster=, workload=, engine=, ...

Examples:
  moesd-sim advise model=llama31_8b cluster=h100 drafters=eagle3,ngram acceptance=preset workload.rate_per_s=8
  moesd-sim advise model=qwen3_30b_a3b cluster=h100 speculation.acceptance.rate=0.75
  moesd-sim advise run=bench.json model=llama31_8b cluster=h100 speculation=eagle3 \\
    speculation/acceptance=llama31_8b_eagle3_sharegpt
"""


def main(arguments: Sequence[str], compose: Compose) -> int:
    """What follows the word; exit status 2 for what it cannot use, 130 after Ctrl-C.

    Args:
        arguments: words and overrides.
        compose: `sim.application.compose`, overrides -> experiments.
    """
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(_USAGE)
        return 0
    try:
        _run(parse(arguments), compose)
    except (ValueError, FileNotFoundError, InfeasibleError, DeadlockError) as error:
        sys.stderr.write(f"moesd-sim advise: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("moesd-sim advise: interrupted\n")
        return INTERRUPTED
    return 0


def drafters_of(arguments: Arguments, compose: Compose) -> list[Drafted]:
    """The drafters to choose from, each at the longest draft length considered.

    Raises:
        ValueError: several models, or none of SD.
    """
    found = []
    for name in arguments.drafters or ("",):
        experiments = compose(*arguments.overrides_of(name))
        models = list(dict.fromkeys(one.model.name for one in experiments))
        if len(models) > 1:
            raise ValueError(f"model must be one, got {', '.join(models)}; choose by model=")
        experiment = experiments[-1]
        if experiment.speculation is None:
            raise ValueError("speculation=off has no drafter to advise on; choose one, or several by drafters=")
        given = arguments.acceptance_given(name)
        source = "as given" if given else f"of the preset, which means it for {drafts_in_words(experiment.drafts)}"
        is_known = {"given": given, "preset": True, "unknown": False}[arguments.acceptance]
        named = name or arguments.chosen_drafter or DEFAULT_DRAFTER
        found.append(Drafted(named, _longest(experiment, arguments.most), is_known, source))
    return found


def write_files(advice: Advice, folder: Path, server: Served | None = None) -> list[str]:
    """Write `advice.json`, `advice.html` and what there is to paste; the names of the latter.

    Args:
        advice: what to write.
        folder: where; made if need be.
        server: the server it is for, where its benchmarks were fitted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = _to_paste(advice)
    texts["advice.json"] = json.dumps(as_dict(advice) | _about(server), indent=1, allow_nan=False) + "\n"
    for name, text in texts.items():
        write_whole(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
    write_advice_page(advice, folder / "advice.html", partial(_print_served, advice, server))
    return [name for name in texts if name != "advice.json"]


def _run(arguments: Arguments, compose: Compose) -> None:
    from rich.console import Console

    console = Console()
    with console.status("") as status:
        drafters = drafters_of(arguments, compose)
        experiment, server = replace(drafters[0].experiment, speculation=None), None
        if arguments.runs:
            status.update("fitting the deployment to its benchmarks")
            server = served(experiment, arguments.runs, arguments.fit)
            experiment, drafters = server.fit.experiment, [server.drafted(one) for one in drafters]
        requests = experiment.workload.requests(experiment.seed) if server is None else server.requests
        advice = advise(
            experiment, drafters, requests, lambda label: status.update(f"simulating {label}"),
            every_length=server is not None,
        )  # fmt: skip
        folder = Path(arguments.out or datetime.now(tz=UTC).astimezone().strftime("outputs/%Y-%m-%d/%H-%M-%S"))
        status.update("writing the report")
        names = write_files(advice, folder, server)
    print_advice(advice, console)
    _print_served(advice, server, console)
    gpu, link = resolve(experiment.cluster)
    note = experiment.cost.note(gpu, link if experiment.cluster.gpus_per_replica > 1 else None)
    console.print(f"Step times: {note}.", style="dim", highlight=False)
    if names:
        console.print(f"To paste: {', '.join(names)}.", highlight=False)
    console.print(str(folder), soft_wrap=True)


def _print_served(advice: Advice, server: Served | None, console: Console) -> None:
    if server is None:
        return
    console.print("Predicted from the run without SD, with bands:", highlight=False)
    console.print(figures_table(advice, server.measured))
    for note in server.notes():
        console.print(f"{note}.", style="dim", highlight=False)


def _about(server: Served | None) -> dict[str, Any]:
    if server is None:
        return {}
    return {
        "measured": {"source": server.source, **server.measured},
        "fit": {constant.name: constant.value for constant in server.fit.constants},
        "fit_notes": server.notes(),
    }


def _to_paste(advice: Advice) -> dict[str, str]:
    """File name -> content: the advised configuration, or one per drafter to measure its acceptance with."""
    texts = {}
    target = advice.contest.plain.experiment.model
    vllm, sglang = exported_vllm(advice), exported_sglang(advice)
    if vllm is not None:
        texts["vllm_speculative_config.json"] = json.dumps(vllm) + "\n"
        texts["vllm_serve.sh"] = vllm_command(vllm, target) + "\n"
    if sglang is not None:
        texts["sglang_flags.txt"] = shlex.join(sglang) + "\n"
    for report in advice.drafters:
        drafted = report.drafted
        if drafted.acceptance_known or report.infeasible:
            continue
        drafter, drafts = speculation_of(drafted.experiment).drafter, min(3, drafted.experiment.drafts)
        config = vllm_config(drafter, Fixed(drafts=drafts), target)
        if config is not None:
            texts[f"vllm_measure_{drafted.name}.json"] = json.dumps(config) + "\n"
    return texts


def _longest(experiment: Experiment, most: int) -> Experiment:
    """At the longest draft length considered."""
    limit = speculation_of(experiment).drafter.most_drafts
    if most > limit:
        raise ValueError(f"most must be <= {limit}, the most drafts of this drafter, got {most}")
    return with_drafts(experiment, most or min(limit, max(LEAST_CONSIDERED, experiment.drafts)))
