"""The two pools of disaggregated serving, from an Experiment that has them."""

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
from sim.metrics.record import Recorder
from sim.metrics.transfers import PrefillPool
from sim.request import Requests
from sim.serving.decode_rank import DecodeRank, Recompute
from sim.serving.disaggregated import Pools
from sim.serving.kv import KvLayout
from sim.serving.prefill_rank import PrefillRank
from sim.serving.ticks import ticks
from sim.serving.transfer import KvTransfer

PoolRank = PrefillRank | DecodeRank


@dataclass(frozen=True, slots=True)
class PrefillSide:
    """The prefill pool as deployed.

    Attributes:
        experiment: one of its own, whose replicas are the pool's.
        cost: its price.
        kv: the KV pool of each of its ranks.
    """

    experiment: Experiment
    cost: StepCost
    kv: KvLayout

    @classmethod
    def of(cls, experiment: Experiment) -> PrefillSide:
        """That of `experiment`, which must have one."""
        settings = experiment.disaggregation
        assert settings is not None
        alone = replace(
            experiment,
            cluster=settings.prefill_side(experiment.cluster),
            router=settings.prefill_router,
            speculation=None if settings.draft_kv == "recomputed" else experiment.speculation,
            disaggregation=None,
            failures=None,
        )
        cost = step_cost(alone)
        return cls(alone, cost, rank_memory(alone, cost))

    @property
    def pool(self) -> PrefillPool:
        """What the metrics must know of it."""
        return PrefillPool(self.experiment.cluster.replicas, partial(cost_at, self.experiment, self.cost))


def pools_of(
    experiment: Experiment, prefill: PrefillSide, requests: Requests, cost: StepCost, kv: KvLayout, recorder: Recorder
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
