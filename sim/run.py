"""The composition root: an Experiment becomes objects, the objects run in SimPy, what they record becomes a Result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sim.config import Experiment
from sim.deployment import cost_at, replica_maker, step_cost
from sim.errors import InfeasibleError
from sim.metrics.record import NOT_YET, Recorder
from sim.pools import Kind, further_kinds, pools_of, prefill_side
from sim.request import Requests
from sim.result import Interrupted, Result
from sim.serving.clock import Clock
from sim.serving.disaggregated import DisaggregatedFleet
from sim.serving.ending import run_to_end
from sim.serving.fleet import ReplicaFleet, Spare
from sim.serving.flight import Pools
from sim.serving.kv import KvLayout
from sim.workload.context import clip_to_context

__all__ = ["Result", "cost_at", "simulate", "step_cost"]

NEVER_FITS = "more KV than a replica has"


def simulate(experiment: Experiment, requests: Requests | None = None) -> Result:
    """Run one experiment to its last finish.

    Args:
        experiment: what to run.
        requests: the stream, where it was made already; else `experiment.workload` makes it.

    Raises:
        InfeasibleError: the weights, or every single request, do not fit; or no step is ever completed.
        ValueError: the workload is malformed or longer than the model's context.
        DeadlockError: requests are left that nothing will ever serve.
        Interrupted: by Ctrl-C; it holds the beginning of the run as a Result.
    """
    requests = requests if requests is not None else experiment.workload.requests(experiment.seed)
    context = experiment.model.max_context_tokens
    requests = clip_to_context(requests, context, drop=experiment.drop_oversized)
    kind, further = Kind.of(experiment), further_kinds(experiment)
    cost, kv = kind.cost, kind.kv
    for each in (kind, *further):
        requests = _drop_never_fitting(requests, each.kv, requests.output_tokens - 2 + each.cost.width)
    prefill = prefill_side(experiment) if experiment.disaggregation is not None else None
    if prefill is not None:
        # What a request had out when a replica died is prefilled with its prompt.
        again = requests.output_tokens if experiment.failures is not None else np.zeros_like(requests.output_tokens)
        requests = _drop_never_fitting(requests, prefill.kv, again)
    recorder = Recorder(len(requests), experiment.keep_steps)
    env = Clock()
    if prefill is None:
        makers = [replica_maker(each.experiment, requests, each.cost, each.kv, recorder) for each in (kind, *further)]
        fleet = _fleet(experiment, env, _by_number(makers, (kind, *further)), requests, recorder)
    else:
        pools, spare = pools_of(experiment, prefill, requests, cost, kv, recorder)
        fleet = _pooled_fleet(experiment, env, pools, spare, requests, recorder)
    whole = run_to_end(env, fleet, recorder)
    if recorder.is_empty:
        _refuse_empty(recorder, whole=whole)
    result = Result(
        experiment=experiment,
        requests=requests,
        recorder=recorder,
        cost=cost,
        cost_at=partial(cost_at, experiment, cost),
        kv=kv,
        events=env.events,
        partial=not whole,
        kinds=(prefill.priced(prefills=True),) if prefill is not None else tuple(each.priced() for each in further),
    )
    if not whole:
        raise Interrupted(result)
    return result


def _fleet(experiment: Experiment, env: Clock, replica: Spare, requests: Requests, recorder: Recorder) -> ReplicaFleet:
    units = [replica(number) for number in range(experiment.replicas)]
    seed, failures = experiment.seed, experiment.failures
    return ReplicaFleet(env, units, experiment.router, requests, recorder, seed=seed, failures=failures, spare=replica)


def _by_number(makers: Sequence[Spare], kinds: Sequence[Kind]) -> Spare:
    """The maker of each kind, by the numbers of its replicas."""
    if len(makers) == 1:
        return makers[0]
    return lambda number: makers[sum(number >= kind.end for kind in kinds)](number)


def _pooled_fleet(
    experiment: Experiment, env: Clock, pools: Pools, spare: Spare, requests: Requests, recorder: Recorder
) -> ReplicaFleet:
    seed, failures = experiment.seed, experiment.failures
    return DisaggregatedFleet(env, pools, requests, recorder, seed=seed, failures=failures, spare=spare)


def _refuse_empty(recorder: Recorder, *, whole: bool) -> None:
    """No step was ever completed: there are no figures to give."""
    if not whole:
        raise KeyboardInterrupt
    raise InfeasibleError(
        f"no step was completed before {sum(t != NOT_YET for t in recorder.lost)} requests were lost with their "
        f"replica and the clients of {sum(t != NOT_YET for t in recorder.cancelled)} gave up; allow retries "
        "(failures.most_retries) or more time"
    )


def _drop_never_fitting(requests: Requests, kv: KvLayout, more: NDArray[np.int64]) -> Requests:
    """Leave out, and count, requests whose prompt and `more` tokens need more blocks than the pool has."""
    tokens = requests.prompt_tokens + more + kv.lookahead_tokens
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
