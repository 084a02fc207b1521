"""The composition root: an Experiment becomes objects, the objects run in SimPy, what they record becomes a Result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np

from sim.config import Experiment
from sim.cost.forward import ForwardCost
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.cost.times import StepTimes
from sim.errors import InfeasibleError
from sim.hardware import resolve
from sim.memory import Resident, kv_layout
from sim.metrics.record import Recorder
from sim.model import Model
from sim.request import Requests
from sim.result import Result
from sim.serving.clock import Clock
from sim.serving.fleet import ReplicaFleet
from sim.serving.kv import KvLayout
from sim.serving.paths import Paths, RoundRule
from sim.serving.prefix import BlockIds
from sim.serving.rank import Rank
from sim.serving.setup import RankSetup
from sim.speculation.length import Chooser, Outlook
from sim.speculation.request_length import RequestLength
from sim.workload.context import clip_to_context

__all__ = ["Result", "cost_at", "simulate", "step_cost"]

NEVER_FITS = "more KV than a replica has"


def simulate(experiment: Experiment, requests: Requests | None = None) -> Result:
    """Run one experiment to its last finish.

    Args:
        experiment: what to run.
        requests: the stream, where it was made already; else `experiment.workload` makes it.

    Raises:
        InfeasibleError: the weights, or every single request, do not fit.
        ValueError: the workload is malformed or longer than the model's context.
    """
    requests = requests if requests is not None else experiment.workload.requests(experiment.seed)
    context = experiment.model.max_context_tokens
    requests = clip_to_context(requests, context, drop=experiment.drop_oversized)
    cost = step_cost(experiment)
    kv = _kv_layout(experiment, cost)
    requests = _drop_never_fitting(requests, kv, cost.width)
    recorder = Recorder(len(requests), experiment.keep_steps)
    env = Clock()
    fleet = ReplicaFleet(env, _ranks(experiment, requests, cost, kv, recorder), experiment.router, requests, recorder)
    env.run()
    assert not any(fleet.loads), f"the run ended with requests still in the replicas: {fleet.loads}"
    return Result(
        experiment=experiment,
        requests=requests,
        recorder=recorder,
        cost=cost,
        cost_at=partial(cost_at, experiment, cost),
        kv=kv,
        events=env.events,
    )


def step_cost(experiment: Experiment) -> StepCost:
    """The price of the experiment's steps, those of its longest draft length."""
    ranks, speculation = experiment.cluster.tensor_parallel, experiment.speculation
    cost = StepCost(target=_forward(experiment, experiment.model, ranks), engine=experiment.engine)
    if speculation is None:
        return cost
    model = speculation.drafter.draft_for(experiment.model)
    if model is not None:
        cost = replace(cost, draft=_forward(experiment, model, speculation.drafter.ranks(ranks)))
    return cost_at(experiment, cost, experiment.drafts)


def cost_at(experiment: Experiment, cost: StepCost, drafts: int) -> StepCost:
    """`cost` at another draft length."""
    speculation = experiment.speculation
    if speculation is None:
        return cost
    drafter = speculation.drafter
    return replace(cost, width=drafter.verify_tokens(drafts), drafting=drafter.drafting(drafts))


def _forward(experiment: Experiment, model: Model, tensor_parallel: int) -> ForwardCost:
    gpu, link = resolve(experiment.cluster)
    expert_parallel = experiment.cluster.expert_parallel and model is experiment.model
    return experiment.cost.forward(model, gpu, link, tensor_parallel, expert_parallel, experiment.routing)


def _kv_layout(experiment: Experiment, cost: StepCost) -> KvLayout:
    gpu, _ = resolve(experiment.cluster)
    residents = [Resident(cost.target.model, cost.target.tensor_parallel)]
    lookahead = 0
    if cost.draft is not None:
        residents.append(Resident(cost.draft.model, cost.draft.tensor_parallel))
    if experiment.speculation is not None:
        lookahead = experiment.speculation.drafter.lookahead_tokens(experiment.drafts)
    return kv_layout(residents, gpu, experiment.cluster, experiment.engine, experiment.scheduler, lookahead)


def _drop_never_fitting(requests: Requests, kv: KvLayout, width: int) -> Requests:
    """Leave out, and count, requests whose last round needs more blocks than the pool has."""
    tokens = requests.prompt_tokens + requests.output_tokens - 2 + width + kv.lookahead_tokens
    fits = -(-tokens // kv.block_tokens) <= kv.blocks
    refused = int(np.count_nonzero(~fits))
    if not refused:
        return requests
    if refused == len(requests):
        raise InfeasibleError(
            f"no request fits: a replica's KV pool holds {kv.blocks} blocks of {kv.block_tokens} tokens = "
            f"{kv.blocks * kv.block_tokens} tokens, the shortest request needs {int(tokens.min())}; "
            "use more or larger GPUs"
        )
    return replace(requests.take(fits), dropped=(*requests.dropped, (NEVER_FITS, refused)))


def _most_context_tokens(experiment: Experiment, kv: KvLayout) -> int:
    """Cached tokens of the largest batch a rank can hold."""
    return min(kv.blocks * kv.block_tokens, experiment.scheduler.max_seqs * experiment.model.max_context_tokens)


def _ranks(experiment: Experiment, requests: Requests, cost: StepCost, kv: KvLayout, recorder: Recorder) -> list[Rank]:
    speculation = experiment.speculation
    costs = cache(partial(cost_at, experiment, cost))
    times = StepTimes(
        costs, experiment.drafts, experiment.scheduler.max_batched_tokens, _most_context_tokens(experiment, kv)
    )
    prefixes = experiment.scheduler.prefix_caching
    setup = RankSetup(
        prices=times,
        scheduler=experiment.scheduler,
        kv=kv,
        drafts=experiment.drafts,
        chooser=_chooser(experiment, costs),
        max_block_steps=experiment.engine.max_block_steps,
        planned_ahead=experiment.engine.planned_ahead,
        block_ids=BlockIds(requests, kv.block_tokens) if prefixes else None,
        drop_last_hit=speculation is not None and speculation.drafter.reads_hidden_states,
    )
    if speculation is not None:
        speculation.acceptance.check(requests)
    paths = Paths(requests, _round_rule(experiment, kv), kv.block_tokens, experiment.seed)
    return [Rank(number, setup, paths, recorder) for number in range(experiment.cluster.replicas)]


def _round_rule(experiment: Experiment, kv: KvLayout) -> RoundRule:
    speculation = experiment.speculation
    if speculation is None:
        return RoundRule(lookahead_tokens=kv.lookahead_tokens)
    length = speculation.length
    return RoundRule(
        acceptance=speculation.acceptance,
        width=speculation.drafter.verify_tokens,
        lookahead_tokens=kv.lookahead_tokens,
        request_length=length if isinstance(length, RequestLength) else None,
        offers=speculation.drafter.offers(),
        trailing_rounds=experiment.engine.planned_ahead,
    )


def _chooser(experiment: Experiment, costs: Callable[[int], StepCost]) -> Callable[[], Chooser] | None:
    """What makes the decisions of each rank; None where the draft length never changes."""
    speculation = experiment.speculation
    if speculation is None:
        return None

    def step_s(sequences: int, cached: int, drafts: int) -> float:
        cost = costs(drafts)
        return float(cost.seconds(StepShape(sequences=sequences, width=cost.width, context_tokens=cached)))

    def emitted(drafts: int) -> float:
        return speculation.acceptance.mean_accepted(drafts) + 1.0 if drafts else 1.0

    outlook = Outlook(step_s=step_s, emitted=emitted)
    if speculation.length.chooser(outlook) is None:
        return None
    return lambda: _some(speculation.length.chooser(outlook))


def _some(chooser: Chooser | None) -> Chooser:
    assert chooser is not None
    return chooser
