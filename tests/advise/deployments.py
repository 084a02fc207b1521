"""Deployments on which advice is tested: dense and MoE, small steps so that their prices are tabulated fast."""

from __future__ import annotations

from dataclasses import replace

from sim import ChunkedPrefill, Cluster, ConstantRate, DraftModel, Fixed, Speculation
from sim.advise.contest import Drafted
from sim.config import Experiment
from sim.cost.pricing import Fitted
from sim.speculation.acceptance import Acceptance
from sim.speculation.draft import Drafter
from sim.speculation.eagle import Eagle
from tests.deployments import experiment, workload

H100, H200, H100_X2 = Cluster(gpu="h100_sxm"), Cluster(gpu="h200_sxm"), Cluster(gpu="h100_sxm", tensor_parallel=2)
EAGLE3 = Eagle(vocab=32000)

DEPLOYMENTS: dict[str, tuple[str, Cluster, Drafter, float]] = {
    "dense, EAGLE-3": ("llama31_8b", H100, EAGLE3, 0.7),
    "dense, draft model": ("qwen3_32b", H100_X2, DraftModel(), 0.75),
    "MoE, draft model": ("qwen3_30b_a3b", H200, DraftModel(), 0.7),
    "MoE, EAGLE-3": ("mixtral_8x7b", H100_X2, EAGLE3, 0.6),
}


def served(
    model: str, cluster: Cluster, num_requests: int = 40, rate_per_s: float = 4.0, prompt: int = 300, output: int = 60
) -> Experiment:
    """The deployment without SD."""
    return experiment(
        model,
        cluster=cluster,
        cost=Fitted(),
        keep_steps=False,
        scheduler=ChunkedPrefill(max_batched_tokens=512, max_seqs=48),
        workload=workload(num_requests, rate_per_s, prompt, output),
    )


def with_sd(plain: Experiment, drafter: Drafter, acceptance: Acceptance | float, drafts: int = 4) -> Experiment:
    """The same with SD."""
    rate = ConstantRate(rate=acceptance) if isinstance(acceptance, float) else acceptance
    return replace(plain, speculation=Speculation(drafter=drafter, length=Fixed(drafts=drafts), acceptance=rate))


def drafted(
    plain: Experiment, drafter: Drafter, acceptance: float, drafts: int = 4, name: str = "drafter", known: bool = True
) -> Drafted:
    return Drafted(name, with_sd(plain, drafter, acceptance, drafts), known)
