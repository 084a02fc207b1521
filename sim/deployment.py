"""What an Experiment deploys on each replica: the price of its steps, its KV pool, its ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

from sim.config import Experiment
from sim.cost.forward import ForwardCost
from sim.cost.pipeline_times import stage_layers
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.cost.times import StepTimes
from sim.hardware import resolve
from sim.memory import Resident, kv_layout
from sim.metrics.record import Recorder
from sim.model import Model
from sim.parallel import Serving, unit_maker
from sim.request import Requests
from sim.serving.kv import KvLayout
from sim.serving.paths import Paths
from sim.serving.prefix import BlockIds
from sim.serving.replicas import Unit
from sim.serving.rounds import RoundRule
from sim.serving.setup import RankSetup
from sim.speculation.length import Chooser, Outlook
from sim.speculation.request_length import RequestLength


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
    cluster, routing = experiment.cluster, experiment.routing
    shared = model.is_moe and tensor_parallel == cluster.tensor_parallel
    data_parallel = cluster.data_parallel if shared or model is experiment.model else 1
    whole = cluster.expert_parallel and (shared or model is experiment.model)
    return experiment.cost.forward(model, gpu, link, tensor_parallel, whole, routing, data_parallel)


def rank_memory(experiment: Experiment, cost: StepCost) -> KvLayout:
    """The KV pool of each rank."""
    gpu, _ = resolve(experiment.cluster)
    forwards, lookahead = [cost.target] if cost.draft is None else [cost.target, cost.draft], 0
    residents = [Resident.of(forward) for forward in forwards]
    if experiment.speculation is not None:
        lookahead = experiment.speculation.drafter.lookahead_tokens(experiment.drafts)
    stages = stage_layers(cost.target.model.layer_count, experiment.cluster.pipeline_parallel)
    layouts = [
        kv_layout(list(held), gpu, experiment.cluster, experiment.engine, experiment.scheduler, lookahead)
        for held in zip(*(resident.stages(stages) for resident in residents), strict=True)
    ]
    return min(layouts, key=lambda layout: layout.blocks)


def most_context_tokens(experiment: Experiment, kv: KvLayout) -> int:
    """Cached tokens of the largest batch a rank can hold."""
    return min(kv.blocks * kv.block_tokens, experiment.scheduler.max_seqs * experiment.model.max_context_tokens)


def serving_of(experiment: Experiment, requests: Requests, cost: StepCost, kv: KvLayout, recorder: Recorder) -> Serving:
    """What the ranks share."""
    speculation = experiment.speculation
    costs = cache(partial(cost_at, experiment, cost))
    times = StepTimes(
        costs, experiment.drafts, experiment.scheduler.max_batched_tokens, most_context_tokens(experiment, kv)
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
    return Serving(setup, paths, recorder)


def replica_maker(
    experiment: Experiment, requests: Requests, cost: StepCost, kv: KvLayout, recorder: Recorder
) -> Callable[[int], Unit]:
    """Makes what the replica of a number puts on the clock; another one after each failure."""
    serving = serving_of(experiment, requests, cost, kv, recorder)
    return unit_maker(
        experiment, serving, cache(partial(cost_at, experiment, cost)), most_context_tokens(experiment, kv)
    )


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
