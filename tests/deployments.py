"""Small deployments that several tests share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim import (
    Analytic,
    ChunkedPrefill,
    Cluster,
    ConstantRate,
    DraftModel,
    Experiment,
    Fixed,
    LeastRequests,
    Lengths,
    Speculation,
    Synthetic,
    Uniform,
    load_model,
    read_engine,
)


def speculation(drafts: int = 3, rate: float = 0.8) -> Speculation:
    return Speculation(drafter=DraftModel(), length=Fixed(drafts=drafts), acceptance=ConstantRate(rate=rate))


def workload(num_requests: int = 60, rate_per_s: float = 4.0, prompt: int = 400, output: int = 60) -> Synthetic:
    return Synthetic(
        num_requests=num_requests,
        arrival="poisson",
        rate_per_s=rate_per_s,
        prompt=Lengths(kind="lognormal", median_tokens=prompt, sigma=0.6),
        output=Lengths(kind="lognormal", median_tokens=output, sigma=0.6),
    )


def experiment(model: str = "qwen3_30b_a3b", **changes: Any) -> Experiment:
    base = Experiment(
        model=load_model(model, "model"),
        cluster=Cluster(gpu="h200_sxm"),
        workload=workload(),
        scheduler=ChunkedPrefill(),
        router=LeastRequests(),
        engine=read_engine("vllm_0_10"),
        routing=Uniform(),
        cost=Analytic(),
    )
    return replace(base, **changes)
