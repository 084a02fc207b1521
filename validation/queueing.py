"""The engine as a queue: limits with closed forms, and Little's law.

Everything runs through `sim.simulate`. With one sequence at a time (`scheduler.max_seqs=1`) a rank is a single server
with first come, first served, whatever its prices: requests of one size make it M/D/1, of random sizes M/G/1. With c
sequences it is c servers as far as a step costs the same for any batch: a small model under 0.1 s of host time per
step comes within a percent of that, and geometric lengths make the service exponential, hence M/M/c.

A mean over a finite stream is noisy (100,000 requests: about 1 % of E2E, several of the wait), so each limit has three
figures. E2E against the closed form is judged, its confidence interval beside it. The wait against the closed form is
reported raw, and judged with the exact recursion on the same arrivals and services as control variate: the recursion's
mean is the closed form, so what differs is the engine's own, next to free of noise. Closed forms take the rate and the
moments of the drawn stream.

Sources: Pollaczek-Khinchine, Erlang C and Lindley / Kiefer-Wolfowitz, as in Asmussen, "Applied Probability and
Queues" (2003); Little (1961).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapreplace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim import Experiment, Requests, Result, compose, simulate
from sim.serving.ticks import ticks_array
from validation.checks import Check

BAR = 0.01
BATCHES = 30
STUDENT_T = 2.045
"""Two-sided 95 % quantile for 29 degrees of freedom."""

FULL_SIZE = 100_000
LONE_REQUESTS = 2_000
LONE_GAP_S = 2_000.0
HOST_STEP_S = 0.1

Ticks = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Visits:
    """What every request saw, in whole ticks, in order of arrival."""

    arrival: Ticks
    start: Ticks
    finish: Ticks

    @classmethod
    def of(cls, result: Result) -> Visits:
        """The visits of a run."""
        recorder = result.recorder
        return cls(*(np.asarray(column) for column in (recorder.arrival, recorder.admitted, recorder.finish)))

    @property
    def wait(self) -> Ticks:
        """Arrival to start."""
        return self.start - self.arrival

    @property
    def service(self) -> Ticks:
        """Start to finish."""
        return self.finish - self.start

    @property
    def rate(self) -> float:
        """Arrivals per tick."""
        return (len(self.arrival) - 1) / float(self.arrival[-1] - self.arrival[0])

    def batches(self, count: int) -> list[Visits]:
        """The visits cut into `count` successive parts."""
        columns = (np.array_split(column, count) for column in (self.arrival, self.start, self.finish))
        return [Visits(*part) for part in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class Limit:
    """A queue with a closed form.

    Attributes:
        name: as in the table of figures.
        overrides: the deployment.
        servers: sequences at once.
        load: offered load per server.
        prompt_tokens: of every request.
        output_tokens: lengths of so many requests.
        mean_wait: closed form from the visits, in ticks.
    """

    name: str
    overrides: tuple[str, ...]
    servers: int
    load: float
    prompt_tokens: int
    output_tokens: Callable[[np.random.Generator, int], NDArray[np.int64]]
    mean_wait: Callable[[Visits, int], float]


def pollaczek_khinchine(visits: Visits, _: int = 1) -> float:
    """Mean wait of M/G/1: rate E[S^2] / (2 (1 - load))."""
    service = visits.service.astype(np.float64)
    return visits.rate * float((service**2).mean()) / (2 * (1 - visits.rate * float(service.mean())))


def erlang_c(visits: Visits, servers: int) -> float:
    """Mean wait of M/M/c: P(wait) E[S] / (c (1 - load)), P(wait) by Erlang's recursion for the loss."""
    service = float(visits.service.mean())
    offered = visits.rate * service
    loss = 1.0
    for server in range(1, servers + 1):
        loss = offered * loss / (server + offered * loss)
    waits = loss / (1 - offered / servers * (1 - loss))
    return waits * service / (servers - offered)


def geometric(mean: float) -> Callable[[np.random.Generator, int], NDArray[np.int64]]:
    """Geometric lengths from 2 on (a request's last token is decoded, not prefilled)."""
    return lambda rng, n: 1 + rng.geometric(1 / (mean - 1), n)


SINGLE = ("model=qwen3_8b", "scheduler.max_seqs=1")
SAME_PRICE = ("model=qwen3_0_6b", "speculation=off", f"engine.step_host_s={HOST_STEP_S}", "engine.sequence_host_s=0.0")
LIMITS = (
    Limit("M/D/1", (*SINGLE, "speculation=off"), 1, 0.5, 1000, lambda _, n: np.full(n, 2), pollaczek_khinchine),
    Limit("M/G/1, SD", (*SINGLE, "speculation.length.drafts=3"), 1, 0.4, 200, geometric(40), pollaczek_khinchine),
    Limit("M/M/1", (*SAME_PRICE, "scheduler.max_seqs=1"), 1, 0.4, 16, geometric(300), erlang_c),
    Limit("M/M/4", (*SAME_PRICE, "scheduler.max_seqs=4"), 4, 0.5, 16, geometric(800), erlang_c),
)


def checks(_: Path | None, n: int = FULL_SIZE) -> list[Check]:
    """Every limit with `n` requests, and Little's law; no data needed."""
    made: list[Check] = []
    for limit in LIMITS:
        made += limit_checks(limit, n)
    return [*made, little_check(max(n // 5, 500))]


def deployment(overrides: tuple[str, ...]) -> Experiment:
    """One H200 under vLLM 0.10's synchronous steps; records of blocks, not of steps."""
    return compose("cluster=h200", "engine=vllm_0_10", "keep_steps=false", *overrides)[-1]


def stream(limit: Limit, n: int, gaps_s: NDArray[np.float64], seed: int = 0) -> Requests:
    """Requests of the limit's sizes at these gaps; the same sizes whatever the gaps."""
    return Requests(
        arrival_s=np.cumsum(gaps_s),
        prompt_tokens=np.full(n, limit.prompt_tokens),
        output_tokens=limit.output_tokens(np.random.default_rng([seed, 1]), n).astype(np.int64),
        group=np.zeros(n, dtype=np.int32),
    )


def lone_services(limit: Limit, made: Experiment, n: int) -> Ticks:
    """Service times of the first `n` requests when nobody else is there."""
    return Visits.of(simulate(made, stream(limit, n, np.full(n, LONE_GAP_S)))).service


def visits_of(limit: Limit, n: int, seed: int = 0) -> tuple[Visits, Ticks]:
    """The visits of a Poisson stream at the limit's load, and the lone services that set its rate."""
    made = deployment(limit.overrides)
    lone = lone_services(limit, made, min(n, LONE_REQUESTS))
    mean_gap_s = float(lone.mean()) / (limit.load * limit.servers) / float(ticks_array(1.0))
    gaps_s = np.random.default_rng([seed, 0]).exponential(mean_gap_s, n)
    return Visits.of(simulate(made, stream(limit, n, gaps_s, seed))), lone


def limit_checks(limit: Limit, n: int, seed: int = 0) -> list[Check]:
    """E2E and wait against the closed form, wait against the recursion, services against those of a lone request."""
    visits, lone = visits_of(limit, n, seed)
    closed = limit.mean_wait(visits, limit.servers)
    service = float(visits.service.mean())
    wait, recursion = float(visits.wait.mean()), float(recursion_waits(visits, limit.servers).mean())
    load = visits.rate * service / limit.servers
    noise = half_width(limit, visits)
    drift = float(np.abs(visits.service[: len(lone)] / lone - 1).max())
    alone = "one sequence at a time: exact" if limit.servers == 1 else "a step's price rises a little with the batch"
    return [
        _check(limit.name, "mean_e2e_rel_error", abs(wait - closed) / (closed + service), n, BAR,
               f"load {load:.3f}; 95 % interval +-{noise / (closed + service):.2%} ({BATCHES} batches)"),
        _check(limit.name, "mean_wait_raw_rel_error", abs(wait / closed - 1), n, None,
               f"95 % interval +-{noise / closed:.2%}"),
        _check(limit.name, "mean_wait_controlled_rel_error", abs(wait - recursion) / closed, n,
               0.0 if limit.servers == 1 else BAR,
               "same arrivals and services" + ("" if limit.servers == 1 else "; arrivals wait for the step under way")),
        _check(limit.name, "service_against_lone_request_rel_error", drift, len(lone),
               0.0 if limit.servers == 1 else BAR, alone),
    ]  # fmt: skip


def recursion_waits(visits: Visits, servers: int) -> Ticks:
    """Waits of the drawn arrivals and services under first come, first served (Kiefer-Wolfowitz; Lindley for one)."""
    free = [0] * servers
    waits = []
    for arrival, service in zip(visits.arrival.tolist(), visits.service.tolist(), strict=True):
        start = max(arrival, free[0])
        waits.append(start - arrival)
        heapreplace(free, start + service)
    return np.asarray(waits)


def half_width(limit: Limit, visits: Visits) -> float:
    """Half the 95 % confidence interval of the mean wait less the closed form, by batch means, in ticks.

    Each batch is held against the closed form of its own rate and moments, as the whole stream is.
    """
    parts = visits.batches(BATCHES)
    errors = [float(part.wait.mean()) - limit.mean_wait(part, limit.servers) for part in parts]
    return STUDENT_T * float(np.std(errors, ddof=1)) / float(np.sqrt(BATCHES))


def little_check(n: int) -> Check:
    """Requests in the system, integrated over the step records, against the times that the requests saw."""
    made = deployment(("model=qwen3_8b", "cluster.replicas=3", "speculation.length.drafts=3", "scheduler.max_seqs=8",
                       "workload=azure_like", "workload.rate_per_s=30.0", f"workload.num_requests={n}"))  # fmt: skip
    result = simulate(made)
    visits = Visits.of(result)
    missing = abs(population(result) - int((visits.finish - visits.arrival).sum()))
    return _check("Little's law, 3 replicas, SD", "request_ticks_missing", float(missing), n, 0.0,
                  "ticks of 1 ps, over all requests; integers, so exact")  # fmt: skip


def population(result: Result) -> int:
    """Request-ticks in the system, from the blocks of steps alone.

    Of each block: those decoding, prefilling and queued at its start, and those that came meanwhile, from then on.
    """
    blocks, recorder = result.recorder.blocks(), result.recorder
    inside = blocks["sequences"] + blocks["chunks"] + blocks["waiting"]
    total = int((inside * (blocks["end"] - blocks["start"])).sum())
    arrival, replica = np.asarray(recorder.arrival), np.asarray(recorder.replica)
    for number in np.unique(replica):
        own = blocks["replica"] == number
        starts, ends = blocks["start"][own], blocks["end"][own]
        came = arrival[replica == number]
        block = np.searchsorted(starts, came, side="left") - 1
        meanwhile = (block >= 0) & (came < ends[block])
        total += int((ends[block] - came)[meanwhile].sum())
    return total


def _check(case: str, metric: str, value: float, n: int, bar: float | None, note: str) -> Check:
    return Check(suite="queueing", case=case, metric=metric, value=value, bar=bar, n=n, note=note)
