"""A data set's requests, all sent at once to an engine with a fixed batch, simulated with and without SD."""

from __future__ import annotations

import math
from functools import cache

from sim import ChunkedPrefill, Cluster, Experiment, Fixed, LeastRequests, Lengths, Speculation, Synthetic, simulate
from sim.cost.pricing import Fitted
from sim.speculation.acceptance import MeanLength
from sim.speculation.draft import Drafter
from sim.speculation.ngram import NGram
from validation.speculation_rows import ACCEPTED_IF_MATCHED
from validation.speculation_steps import Deployment

DATASETS = {
    "CNN/DailyMail": (838, 323),
    "GSM8K": (94, 166),
    "InstructCoder": (171, 262),
    "ShareGPT": (355, 728),
}
"""Mean prompt and output tokens (github.com/SpecDecode-Bench/simulator, data/llama3.1-8B)."""
REQUESTS = 512
"""The source profiles up to 512 in flight, so it sent at least that many; how many is not published."""
PROMPT_SIGMA, OUTPUT_SIGMA = 0.6, 0.4
"""Spread of the logarithms of lengths: assumed, only the means are published."""


def stream_speedup(served: Deployment, dataset: str, batch: int, drafter: Drafter, drafts: int, length: float) -> float:
    """Output tokens per second with SD, over those without."""
    share = ACCEPTED_IF_MATCHED
    if isinstance(drafter, NGram):
        matched = min(1.0, max(1e-6, (length - 1.0) / (share * drafts)))
        drafter, length = NGram(match_rate=matched), 1.0 + share * drafts
    speculation = Speculation(
        drafter=drafter, length=Fixed(drafts=drafts), acceptance=MeanLength(length=length, drafts=drafts)
    )
    return _finish_s(served, dataset, batch, None) / _finish_s(served, dataset, batch, speculation)


def _finish_s(served: Deployment, dataset: str, batch: int, speculation: Speculation | None) -> float:
    if speculation is None:
        return _plain_finish_s(served, dataset, batch)
    return _run(served, dataset, batch, speculation)


@cache
def _plain_finish_s(served: Deployment, dataset: str, batch: int) -> float:
    return _run(served, dataset, batch, None)


def _run(served: Deployment, dataset: str, batch: int, speculation: Speculation | None) -> float:
    prompt, output = DATASETS[dataset]
    result = simulate(
        Experiment(
            model=served.model,
            cluster=Cluster(gpu=served.gpu, tensor_parallel=served.tensor_parallel),
            cost=Fitted(kernels=served.kernels),
            workload=Synthetic(
                num_requests=REQUESTS, arrival="closed_loop", concurrency=batch,
                prompt=_lognormal(prompt, PROMPT_SIGMA), output=_lognormal(output, OUTPUT_SIGMA),
            ),
            speculation=speculation,
            engine=served.engine,
            routing=served.routing,
            scheduler=ChunkedPrefill(),
            router=LeastRequests(),
            keep_steps=False,
        )
    )  # fmt: skip
    return float(max(result.recorder.finish))


def _lognormal(mean_tokens: int, sigma: float) -> Lengths:
    return Lengths(kind="lognormal", median_tokens=mean_tokens / math.exp(sigma**2 / 2), sigma=sigma)
