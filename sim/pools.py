"""Replicas of several kinds, from an Experiment that has them: two pools, or more than one cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sim.config import Experiment
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.deployment import cost_at, rank_memory, serving_of, step_cost
from sim.disaggregation import Disaggregation
from sim.memory import Resident
from sim.metrics.kinds import ReplicaKind
from sim.metrics.record import Recorder
from sim.request import Requests
from sim.serving.decode_rank import DecodeRank, Recompute
from sim.serving.flight import Pools
from sim.serving.kv import KvLayout
from sim.serving.prefill_rank import PrefillRank
from sim.serving.ticks import ticks
from sim.serving.transfer import KvTransfer

PoolRank = PrefillRank | DecodeRank


@dataclass(frozen=True, slots=True)
class Kind:
    """Replicas of one kind, as deployed.

    Attributes:
        experiment: one of its own, whose cluster they are.
        cost: the price of their steps.
        kv: the KV pool of each of their ranks.
        first: number of the first of them.
    """

    experiment: Experiment
    cost: StepCost
    kv: KvLayout
    first: int = 0

    @classmethod
    def of(cls, experiment: Experiment, first: int = 0) -> Kind:
        """The replicas of an experiment's cluster."""
        cost = step_cost(experiment)
        return cls(experiment, cost, rank_memory(experiment, cost), first)

    @property
    def end(self) -> int:
        """Number behind the last of them."""
        return self.first + self.experiment.cluster.replicas

    def priced(self, *, prefills: bool = False) -> ReplicaKind:
        """What the metrics must know of them."""
        return ReplicaKind(self.first, self.end, partial(cost_at, self.experiment, self.cost), prefills)


def prefill_side(experiment: Experiment) -> Kind:
    """The pool that prefills for the experiment's cluster."""
    settings = experiment.disaggregation
    assert settings is not None
    cluster = settings.prefill_side(experiment.cluster)
    speculation = None if settings.draft_kv == "recomputed" else experiment.speculation
    router = settings.prefill_router
    return Kind.of(
        replace(experiment, cluster=cluster, router=router, speculation=speculation, disaggregation=None, failures=None)
    )


def further_kinds(experiment: Experiment) -> list[Kind]:
    """The replicas of `further_clusters`, numbered behind those of the cluster."""
    kinds: list[Kind] = []
    first = experiment.cluster.replicas
    for cluster in experiment.further_clusters:
        kinds.append(Kind.of(replace(experiment, cluster=cluster, further_clusters=[], failures=None), first))
        first = kinds[-1].end
    return kinds


def pools_of(
    experiment: Experiment, prefill: Kind, requests: Requests, cost: StepCost, kv: KvLayout, recorder: Recorder
) -> tuple[Pools, Callable[[int], PoolRank]]:
    """Both pools, and what makes another rank for a replica that comes back."""
    settings = experiment.disaggregation
    assert settings is not None
    sends = serving_of(prefill.experiment, requests, prefill.cost, prefill.kv, recorder)
    decodes = serving_of(experiment, requests, cost, kv, recorder)
    setup = replace(decodes.setup, block_ids=None)
    recompute = _recompute(cost) if settings.draft_kv == "recomputed" and cost.draft is not None else None

    def rank(number: int) -> PoolRank:
        if number < settings.prefill_replicas:
            return PrefillRank(number, sends.setup, sends.paths, recorder)
        return DecodeRank(number, setup, decodes.paths, recorder, recompute)

    numbers = range(settings.prefill_replicas + experiment.cluster.replicas)
    ranks = [rank(number) for number in numbers]
    pools = Pools(
        prefill=[rank for rank in ranks if isinstance(rank, PrefillRank)],
        decode=[rank for rank in ranks if isinstance(rank, DecodeRank)],
        prefill_router=settings.prefill_router,
        decode_router=experiment.router,
        transfer=kv_transfer(settings, prefill.cost, cost, experiment.cluster.block_tokens),
    )
    return pools, rank


def kv_transfer(settings: Disaggregation, prefill: StepCost, decode: StepCost, block_tokens: int) -> KvTransfer:
    """How KV gets from ranks priced by `prefill` to ranks priced by `decode`.

    Every GPU of the receiver gets what it keeps, copies of replicated heads and latents included; as many GPUs send or
    receive at once as the smaller side has (vLLM's NIXL connector under unequal tensor parallelism).
    """
    link, forwards = settings.network(), [decode.target]
    if decode.draft is not None and settings.draft_kv == "transferred":
        forwards.append(decode.draft)
    kept = [Resident.of(forward) for forward in forwards]
    pairs = min(prefill.target.tensor_parallel, decode.target.tensor_parallel)
    return KvTransfer(
        block_tokens=block_tokens,
        block_bytes=block_tokens * sum(each.tensor_parallel * each.token_bytes for each in kept),
        windows=tuple(window for each in kept for window in each.windows),
        state_bytes=sum(each.state_bytes for each in kept),
        bytes_per_s=pairs * link.bandwidth_bytes_per_s * settings.bandwidth_share,
        latency_s=link.latency_s,
        layers=decode.target.model.layer_count if settings.overlap else 1,
    )


def _recompute(cost: StepCost) -> Recompute:
    """One pass of the draft model over whole contexts, of which nobody needs logits."""

    def taken(contexts: list[int]) -> int:
        pairs = sum(tokens * (tokens + 1) // 2 for tokens in contexts)
        shape = StepShape(chunks=len(contexts), prefill_tokens=sum(contexts), prefill_pairs=pairs, logits=0)
        return ticks(float(cost.draft_pass_s(shape)) + cost.engine.draft_pass_host_s)

    return taken
