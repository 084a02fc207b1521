"""The composition root: an Experiment becomes objects, the objects run in SimPy, what they record becomes a Result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.config import Experiment
from sim.cost.forward import ForwardCost
from sim.cost.step import StepCost
from sim.cost.times import StepTimes
from sim.errors import InfeasibleError
from sim.hardware import resolve
from sim.memory import Resident, kv_layout
from sim.metrics.record import Recorder
from sim.model import Model
from sim.request import Requests
from sim.result import Result
from sim.serving.kv import KvLayout
from sim.serving.paths import Paths
from sim.serving.rank import Rank
from sim.serving.replica import Clock, ReplicaFleet
from sim.speculation.draft import DraftModel
from sim.workload.context import clip_to_context

__all__ = ["Result", "draft_model", "simulate", "step_cost"]

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
    requests = _drop_never_fitting(requests, kv, experiment.drafts)
    times = StepTimes(cost, experiment.scheduler.max_batched_tokens, _most_context_tokens(experiment, kv))
    recorder = Recorder(len(requests), experiment.keep_steps)
    env = Clock()
    ranks = _ranks(experiment, requests, times, kv, recorder)
    fleet = ReplicaFleet(env, ranks, experiment.router, requests, recorder)
    env.run()
    assert not any(fleet.loads), f"the run ended with requests still in the replicas: {fleet.loads}"
    return Result(
        experiment=experiment, requests=requests, recorder=recorder, cost=cost, times=times, kv=kv, events=env.events
    )


def step_cost(experiment: Experiment) -> StepCost:
    """The price of the experiment's steps."""
    cluster, speculation = experiment.cluster, experiment.speculation
    target = _forward(experiment, experiment.model, cluster.tensor_parallel)
    if speculation is None:
        return StepCost(target=target, engine=experiment.engine)
    draft = draft_model(experiment)
    forward = _forward(experiment, draft[0], draft[1]) if draft is not None else None
    return StepCost(
        target=target, engine=experiment.engine, drafts=experiment.drafts, draft=forward, drafter=speculation.drafter
    )


def draft_model(experiment: Experiment) -> tuple[Model, int] | None:
    """The draft model and the GPUs it is cut over, or None where nothing is drafted by a model."""
    speculation = experiment.speculation
    if speculation is None or not isinstance(speculation.drafter, DraftModel):
        return None
    drafter, target = speculation.drafter, experiment.model
    model = drafter.draft_for(target)
    tensor_parallel = drafter.tensor_parallel or experiment.cluster.tensor_parallel
    if tensor_parallel not in {1, experiment.cluster.tensor_parallel}:
        raise ValueError(
            f"speculation.drafter.tensor_parallel must be 1 or cluster.tensor_parallel = "
            f"{experiment.cluster.tensor_parallel}, got {tensor_parallel}"
        )
    return model, tensor_parallel


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


def _drop_never_fitting(requests: Requests, kv: KvLayout, drafts: int) -> Requests:
    """Leave out, and count, requests whose last round needs more blocks than the pool has."""
    tokens = requests.prompt_tokens + requests.output_tokens - 1 + drafts + kv.lookahead_tokens
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


def _ranks(
    experiment: Experiment, requests: Requests, times: StepTimes, kv: KvLayout, recorder: Recorder
) -> list[Rank]:
    speculation, drafts = experiment.speculation, experiment.drafts
    acceptance = speculation.acceptance if speculation is not None else None
    paths = Paths(requests, acceptance, drafts, kv.lookahead_tokens, kv.block_tokens, experiment.seed)
    return [
        Rank(number, times, paths, experiment.scheduler, kv, recorder, drafts, experiment.engine.max_block_steps)
        for number in range(experiment.cluster.replicas)
    ]
