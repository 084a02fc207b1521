"""Small experiments for the tests of the report: a MoE and a dense model, with SD and without."""

from __future__ import annotations

from functools import cache

from sim.catalogue import load_model
from sim.config import Experiment
from sim.cost.host import Engine
from sim.cost.pricing import Analytic
from sim.cost.routing import Uniform
from sim.hardware import Cluster
from sim.result import Result
from sim.run import simulate
from sim.serving.router import LeastRequests
from sim.serving.scheduler import ChunkedPrefill
from sim.speculation.acceptance import ConstantRate
from sim.speculation.draft import DraftModel
from sim.speculation.length import Fixed
from sim.speculation.speculation import Speculation
from sim.workload.lengths import Lengths
from sim.workload.synthetic import Synthetic

MOE, DENSE = "qwen2_57b_a14b", "qwen3_32b"

ENGINE = Engine(
    name="test engine",
    step_host_s=1e-3,
    sequence_host_s=1e-6,
    sample_s=5e-5,
    reject_s=1.5e-4,
    layer_host_s=7e-5,
    eager_layer_host_s=1.2e-4,
    graph_tokens=512,
    full_graph=True,
    draft_full_graph=False,
    draft_pass_host_s=3e-4,
    reserve_bytes=3e9,
)


def experiment(model: str = MOE, drafts: int = 0, seed: int = 0, replicas: int = 1, kv_blocks: int = 0) -> Experiment:
    """60 requests at a rate that keeps several of them running."""
    speculation = Speculation(drafter=DraftModel(), length=Fixed(drafts=drafts), acceptance=ConstantRate(rate=0.8))
    return Experiment(
        model=load_model(model, "model"),
        cluster=Cluster(gpu="h200_sxm", tensor_parallel=2, replicas=replicas, kv_blocks=kv_blocks),
        workload=Synthetic(
            num_requests=60,
            arrival="poisson",
            rate_per_s=8.0,
            prompt=Lengths(kind="fixed", tokens=700),
            output=Lengths(kind="uniform", min_tokens=1, max_tokens=120),
        ),
        scheduler=ChunkedPrefill(),
        router=LeastRequests(),
        engine=ENGINE,
        routing=Uniform(),
        cost=Analytic(),
        speculation=speculation if drafts else None,
        seed=seed,
    )


@cache
def pairs() -> tuple[Result, ...]:
    """The four runs of the main job, small."""
    return tuple(simulate(experiment(model, drafts)) for model in (MOE, DENSE) for drafts in (0, 4))
