"""How fast it simulates: requests per CPU second of one process, loading excluded, against a bare SimPy loop."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import simpy

from sim import Experiment, Requests, Result, compose, simulate
from validation import speed_long, speed_replay
from validation.build import COMPILED, SPEED_SUITE
from validation.checks import Check

REPEATS = 5
BARE_EVENTS = 5
FLAT = "compiled by mypyc" if COMPILED else "240 calls of Python per request, none a hot spot; see the compiled build"
CONVERSATION = "traces/AzureLLMInferenceTrace_conv_2023.csv.gz"


@dataclass(frozen=True, slots=True)
class Case:
    """One load to simulate.

    Attributes:
        name: as in the table of figures.
        overrides: the experiment.
        bar, goal: requests per second.
        bare_bar, bare_goal: times a bare SimPy loop of five events per request.
        events_bar, events_goal: events per request.
        own_lengths: every request adapts its draft length from round to round.
    """

    name: str
    requests: int
    rate_per_s: float
    replicas: int
    drafts: int
    bar: float
    goal: float
    bare_bar: float | None = None
    bare_goal: float | None = None
    events_bar: float | None = None
    events_goal: float | None = None
    own_lengths: bool = False


CASES = (
    Case("80/s, no SD", 48_355, 80.0, 40, 0, 20_000, 40_000, 8.0, 5.0, 5.5, 5.1),
    Case("80/s, SD on MoE", 48_355, 80.0, 40, 3, 20_000, 30_000, 9.0, 7.0, 5.3, 4.95),
    Case("640/s, no SD", 48_355, 640.0, 40, 0, 20_000, 40_000),
    Case("640/s, SD on MoE", 48_355, 640.0, 40, 3, 20_000, 30_000),
    Case("80/s, adaptive length per request", 48_355, 80.0, 40, 3, 1_500, 5_000, own_lengths=True),
)


def experiment(case: Case) -> Experiment:
    """Qwen3-8B, or Qwen3-30B-A3B with Qwen3-0.6B, one H200 per replica; records of blocks, not of steps."""
    model = "qwen3_30b_a3b" if case.drafts else "qwen3_8b"
    drafts = f"speculation.length.{'start' if case.own_lengths else 'drafts'}={case.drafts}"
    lengths = ["speculation/length=step_up_down"] if case.own_lengths else []
    composed = compose(
        f"model={model}", "cluster=h200", f"cluster.replicas={case.replicas}", f"workload.rate_per_s={case.rate_per_s}",
        f"workload.num_requests={case.requests}", "keep_steps=false",
        *([*lengths, drafts] if case.drafts else ["speculation=off"]),
    )  # fmt: skip
    return composed[-1]


def stream(made: Experiment, data: Path | None) -> Requests:
    """The requests; with `data` their sizes are drawn from the conversation trace instead of its quantiles."""
    requests = made.workload.requests(made.seed)
    if data is None:
        return requests
    path = data / CONVERSATION
    trace = compose("workload=azure_conversation", f"workload.path={path}", "speculation=off")[0].workload.requests(0)
    rows = np.random.default_rng(0).integers(0, len(trace), len(requests))
    return replace(requests, prompt_tokens=trace.prompt_tokens[rows], output_tokens=trace.output_tokens[rows])


def timed(made: Experiment, requests: Requests, repeats: int) -> tuple[float, Result]:
    """Median seconds of a simulation, and the last result."""
    seconds = []
    for _ in range(repeats):
        start = process_time()
        result = simulate(made, requests)
        seconds.append(process_time() - start)
    return median(seconds), result


def bare_loop_s(requests: int, replicas: int, repeats: int) -> float:
    """Median seconds of SimPy processes that do nothing but sleep, five events per request."""
    seconds = []
    for _ in range(repeats):
        start = process_time()
        env = simpy.Environment()
        for _ in range(replicas):
            env.process(_sleep(env, requests * BARE_EVENTS // replicas))
        env.run()
        seconds.append(process_time() - start)
    return median(seconds)


def _sleep(env: simpy.Environment, times: int) -> Generator[simpy.Event, Any, None]:
    for _ in range(times):
        yield env.timeout(1.0)


def checks(data: Path | None) -> list[Check]:
    """Every case; sizes from the trace in `data`, else from its embedded quantiles."""
    made: list[Check] = []
    for case in CASES:
        made += case_checks(case, data)
    return [*made, *speed_replay.checks(data, REPEATS), *speed_long.checks()]


def case_checks(case: Case, data: Path | None, repeats: int = REPEATS) -> list[Check]:
    """Requests per second, times the bare loop, events per request."""
    experiment_ = experiment(case)
    requests = stream(experiment_, data)
    simulate(experiment_, requests.take(np.arange(len(requests)) < 500))  # imports and caches
    seconds, result = timed(experiment_, requests, repeats)
    bare_s = bare_loop_s(case.requests, case.replicas, repeats)
    n = len(requests)
    name, events = case.name, result.events / n
    note = f"a bare event takes {bare_s / (n * BARE_EVENTS) * 1e6:.2f} us on this machine; {FLAT}"
    return [
        _check(name, "requests_per_s", n / seconds, case.bar, case.goal, n, at_least=True, note=note),
        _check(name, "times_bare_simpy", seconds / bare_s, case.bare_bar, case.bare_goal, n, note=note),
        _check(name, "events_per_request", events, case.events_bar, case.events_goal, n),
    ]


def _check(
    case: str, metric: str, value: float, bar: float | None, goal: float | None, n: int, at_least: bool = False,
    note: str = "",
) -> Check:  # fmt: skip
    return Check(
        suite=SPEED_SUITE, case=case, metric=metric, value=value, bar=bar, goal=goal, n=n, at_least=at_least, note=note
    )
