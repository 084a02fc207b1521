"""Small experiments for the tests of the report: a MoE and a dense model, with SD and without."""

from __future__ import annotations

from functools import cache

from sim import Cluster, Experiment, Lengths, Result, Synthetic, simulate
from tests import deployments

MOE, DENSE = "qwen2_57b_a14b", "qwen3_32b"


def experiment(model: str = MOE, drafts: int = 0, seed: int = 0, replicas: int = 1, kv_blocks: int = 0) -> Experiment:
    """60 requests at a rate that keeps several of them running."""
    return deployments.experiment(
        model,
        cluster=Cluster(gpu="h200_sxm", tensor_parallel=2, replicas=replicas, kv_blocks=kv_blocks),
        workload=Synthetic(
            num_requests=60,
            arrival="poisson",
            rate_per_s=8.0,
            prompt=Lengths(kind="fixed", tokens=700),
            output=Lengths(kind="uniform", min_tokens=1, max_tokens=120),
        ),
        speculation=deployments.speculation(drafts) if drafts else None,
        seed=seed,
    )


@cache
def pairs() -> tuple[Result, ...]:
    """The four runs of the main job, small."""
    return tuple(simulate(experiment(model, drafts)) for model in (MOE, DENSE) for drafts in (0, 4))
