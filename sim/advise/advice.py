"""Advice for one deployment: SD on or off, which drafter, which draft lengths, up to which load."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.advise.bands import Band, gain_bands, value_bands
from sim.advise.contest import Contest, Drafted, Entry, Started, hold
from sim.advise.crossover import GainCurve, Loads
from sim.advise.load import Load, at_load, grid, load_of
from sim.advise.memory import DrafterMemory, drafter_memory
from sim.advise.needed import Needed, needed
from sim.advise.static import StaticBatches, mean_context_tokens
from sim.advise.surfaces import Range, Surfaces, paying_ranges, surfaces
from sim.bands import run_bands
from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.request import Requests
from sim.run import simulate
from sim.workload.context import clip_to_context

WITHIN = 0.01
"""What a table by batch may lose to the best fixed length at the stream's load, and must win at some load."""

NO_SD = "no SD"

CURVE_REQUESTS = 300
"""Requests, from the first on, that the search for the crossover load simulates at every load."""


@dataclass(frozen=True, slots=True, eq=False)
class DrafterReport:
    """What was found of one drafter.

    Attributes:
        drafted: the drafter.
        infeasible: why it cannot run beside the target, "" where it can; then the rest is empty.
        memory: what it takes.
        surfaces: break-even lengths and best draft lengths over context and batch.
        ranges: batch sizes in which it pays at the workload's context; empty where its acceptance is unknown.
        best: its best candidate; None where its acceptance is unknown.
        needed: what acceptance it needs; empty where that is known.
    """

    drafted: Drafted
    infeasible: str = ""
    memory: DrafterMemory | None = None
    surfaces: Surfaces | None = None
    ranges: tuple[Range, ...] = ()
    best: Entry | None = None
    needed: tuple[Needed, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Advice:
    """The whole of it.

    Attributes:
        load: of the stream.
        context_tokens: cached tokens of a sequence at its mean decode step.
        contest: every candidate, simulated.
        advised: what to run; None for no SD, and where no drafter's acceptance is known.
        figures: `NO_SD` and label of a candidate -> figure -> value with its band.
        gains: label -> figure -> gain with its band, for the candidates that lead (`_worth_a_band`).
        curves: gain over the load: of the best policy, then of the best fixed length where that is another.
        drafters: one report each, in the order given.
    """

    load: Load
    context_tokens: int
    contest: Contest
    advised: Entry | None
    figures: dict[str, dict[str, Band]]
    gains: dict[str, dict[str, Band]]
    curves: tuple[GainCurve, ...]
    drafters: tuple[DrafterReport, ...]

    @property
    def claims(self) -> bool:
        """Whether a gain is claimed: the acceptance of one drafter at least is known, and it can run."""
        return bool(self.contest.entries)

    @property
    def shown(self) -> Entry | None:
        """The advised candidate, or the best of those that do not pay."""
        return self.advised or self.contest.best()


def advise(
    experiment: Experiment,
    drafters: list[Drafted],
    requests: Requests,
    started: Started = lambda _: None,
    *,
    every_length: bool = False,
) -> Advice:
    """Advice for a deployment under a stream.

    Args:
        experiment: the deployment; its own speculation does not count.
        drafters: drafters to choose from, with different names.
        requests: the stream.
        started: hears what is simulated next.
        every_length: bands for every length of the best drafter, not for its best alone.

    Raises:
        InfeasibleError: the deployment cannot run without SD.
        ValueError: no drafter, one that does not fit the target, or a workload that cannot be served.
    """
    if not drafters:
        raise ValueError("drafters must name at least one option of the group speculation, got none")
    plain = replace(experiment, speculation=None, keep_steps=False)
    requests = clip_to_context(requests, plain.model.max_context_tokens, drop=plain.drop_oversized)
    context = mean_context_tokens(requests)
    drafters = [replace(d, experiment=replace(d.experiment, keep_steps=False)) for d in drafters]
    contest = hold(plain, [d for d in drafters if d.acceptance_known], requests, started)
    reports = tuple(_report(d, contest, requests, context, started) for d in drafters)
    advised = contest.advised(WITHIN)
    curves = _curves(plain, contest, advised, requests, started)
    advised = _simplest(advised, contest, curves)
    started("the bands")
    figures, gains = _bands(contest, _worth_a_band(contest, advised, every_length=every_length))
    return Advice(load_of(requests), context, contest, advised, figures, gains, curves, reports)


def _report(drafted: Drafted, contest: Contest, requests: Requests, context: int, started: Started) -> DrafterReport:
    entries = [entry for entry in contest.entries if entry.drafted.name == drafted.name]
    best = max(entries, key=lambda entry: entry.gain[contest.objective], default=None)
    wanted: list[Needed] = []
    if best is not None:
        result = best.result
    elif drafted.acceptance_known:
        return DrafterReport(drafted, infeasible=next(
            why for label, why in contest.infeasible.items() if label.startswith(f"{drafted.name}, ")
        ))  # fmt: skip
    else:
        started(f"what {drafted.name} needs")
        try:
            wanted = needed(contest.plain, drafted, requests, contest.objective)
        except InfeasibleError as error:
            return DrafterReport(drafted, infeasible=str(error))
        result = wanted[-1].result
    static = StaticBatches.of(drafted.experiment, requests)
    return DrafterReport(
        drafted,
        memory=drafter_memory(contest.plain, result),
        surfaces=surfaces(static, result.kv, context, acceptance_known=drafted.acceptance_known),
        ranges=tuple(paying_ranges(static, context)) if drafted.acceptance_known else (),
        best=best,
        needed=tuple(wanted),
    )


def _simplest(advised: Entry | None, contest: Contest, curves: tuple[GainCurve, ...]) -> Entry | None:
    """The best fixed length instead of a table that is nowhere better by more than `WITHIN`, at any simulated load."""
    fixed = contest.advised(WITHIN, fixed=True)
    if advised is None or fixed is None or len(curves) < 2:
        return advised
    pairs = zip(curves[0].gains, curves[1].gains, strict=True)
    return advised if any(table > one * (1.0 + WITHIN) for table, one in pairs) else fixed


def _worth_a_band(contest: Contest, advised: Entry | None, *, every_length: bool) -> list[Entry]:
    """The best candidate of every drafter and the advised one, or all lengths of the best drafter."""
    leading: dict[str, Entry] = {}
    for entry in sorted(contest.entries, key=lambda entry: entry.gain[contest.objective]):
        leading[entry.drafted.name] = entry
    best = contest.best()
    return [
        entry for entry in contest.entries
        if entry in (advised, leading[entry.drafted.name], contest.best(fixed=True))
        or (every_length and best is not None and entry.drafted.name == best.drafted.name)
    ]  # fmt: skip


def _bands(contest: Contest, entries: list[Entry]) -> tuple[dict[str, dict[str, Band]], dict[str, dict[str, Band]]]:
    """Figures by run, the one without SD first, and gains."""
    plain = run_bands(contest.plain)
    figures, gains = {NO_SD: value_bands(contest.plain, plain)}, {}
    for entry in entries:
        own = run_bands(entry.result)
        figures[entry.label] = value_bands(entry.result, own)
        gains[entry.label] = gain_bands(entry.gain, plain, own)
    return figures, gains


def _curves(
    plain: Experiment, contest: Contest, advised: Entry | None, requests: Requests, started: Started
) -> tuple[GainCurve, ...]:
    """The gain over the load of the advised policy (or the best) and of the best fixed length."""
    first = requests.take(np.arange(len(requests)) < CURVE_REQUESTS)
    chosen = {
        entry.label: entry.result.experiment
        for entry in (advised or contest.best(), contest.best(fixed=True))
        if entry is not None
    }
    if not chosen:
        return ()
    started("the load at which SD turns")
    capacity = 0.0
    if load_of(first).kind == "rate_per_s":
        at_once = simulate(plain, at_load(first, Load("rate_per_s", _AT_ONCE_PER_S)))
        capacity = at_once.summary()["throughput"]["requests_per_s"]
    points = grid(first, capacity, plain.scheduler.max_seqs * plain.cluster.replicas)
    loads = Loads(plain, first, contest.objective)
    return tuple(loads.curve(label, experiment, points) for label, experiment in chosen.items())


_AT_ONCE_PER_S = 1e6
