"""Offline runs of vLLM 0.19 on L4 and A10G, Llama-3.2-1B (`llmservingsim/vllm_e2e_forks`).

`lens_vllm`: batches sent at once. Those of one request fix the two host constants of the engine version and are not
judged; larger ones are. `lens_vllm_continuous`: one long stream of which so many requests run at a time. Only runs
without prefix caching: which prompts of the others were cached already is not recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.cost.host import Engine
from sim.cost.profile_lead import ExpectedLead
from sim.cost.profile_prices import ProfilePrices, no_lead
from sim.request import Requests
from validation.vllm_runs import AMPLE_BLOCKS, ROOT, Deployment, read_profile, serve

GPUS = ("L4", "A10G")
DATASETS = ("arxiv", "cnn", "sharegpt", "writing_prompts")
BATCHES, STREAMS = "lens_vllm", "lens_vllm_continuous"
SIZES = {BATCHES: (2, 4, 8, 16, 32), STREAMS: (4, 16)}
MODEL, LAYERS = "Llama-3.2-1B-Instruct", 16
MAX_BATCHED_TOKENS = 8192
"""Of the profile's engine; the runs do not say theirs."""

MAX_CONTEXT_TOKENS = 1 << 19
BATCHES_PER_CELL = 10
"""Of the 50 recorded ones, the first: a cell's mean moves by less than a percent with more."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Requests sent at once, how many of them run at a time, and the seconds until the last token."""

    size: int
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    seen_s: float

    @property
    def requests(self) -> Requests:
        """As a stream that arrives at once."""
        n = len(self.prompt_tokens)
        return Requests(
            arrival_s=np.zeros(n),
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            group=np.zeros(n, dtype=np.int32),
        )


@dataclass(frozen=True, slots=True)
class HostFit:
    """What the host adds: to every step of the engine, and to every call of the offline interface."""

    step_s: float
    call_s: float
    rel_error: float


def read_batches(data: Path, gpu: str, dataset: str, size: int, kind: str = BATCHES) -> list[Batch]:
    """The first batches of a cell that ran, or its one stream."""
    import pandas as pd

    folder = data / ROOT / "vllm_e2e_forks" / kind / gpu / "off" / MODEL / "tp1" / f"bs{size}"
    table = pd.read_csv(folder / f"{dataset}.csv.gz")
    table = table[table["status"] == "OK"].head(BATCHES_PER_CELL)
    columns = (table[name] for name in ("input_lens", "output_lens", "batch_e2e_ms"))
    return [
        Batch(size, np.array(json.loads(prompts)), np.array(json.loads(outputs)), float(milliseconds) * 1e-3)
        for prompts, outputs, milliseconds in zip(*columns, strict=True)
    ]


def prices(data: Path, gpu: str, engine: Engine, batch: Batch | None = None) -> ProfilePrices:
    """Of one GPU; leads are those of `batch`, where there is one."""
    folder = data / ROOT / "profiles_v1_forks" / gpu / "meta-llama" / MODEL / "bf16" / "tp1"
    lead = no_lead if batch is None else ExpectedLead(batch.prompt_tokens, batch.output_tokens)
    profile = read_profile(folder, LAYERS)
    return ProfilePrices(profile, engine, LAYERS, MAX_BATCHED_TOKENS, MAX_CONTEXT_TOKENS, lead_tokens=lead)


def predicted_s(batch: Batch, made: ProfilePrices, engine: Engine) -> tuple[float, int]:
    """Seconds until the batch's last token, and the steps it took, without the call's own time."""
    deployment = Deployment(max_seqs=batch.size, max_batched_tokens=MAX_BATCHED_TOKENS, kv_blocks=AMPLE_BLOCKS)
    done = serve(batch.requests, deployment, made, engine)
    return float(done.times.last_s.max()), done.steps


def fit_host(data: Path, engine: Engine) -> HostFit:
    """Host time per step and per call from the batches of one request of both GPUs, relative errors squared.

    Each cell (GPU and data set) counts once, as its mean.
    """
    free = replace(engine, step_host_s=0.0, sequence_host_s=0.0)
    rows, seen = [], []
    for gpu in GPUS:
        made = prices(data, gpu, free)
        for dataset in DATASETS:
            batches = read_batches(data, gpu, dataset, 1)
            kernels = np.array([predicted_s(batch, made, free) for batch in batches]).mean(axis=0)
            seen_s = float(np.mean([batch.seen_s for batch in batches]))
            rows.append((kernels[1] / seen_s, 1.0 / seen_s))
            seen.append(1.0 - kernels[0] / seen_s)
    matrix, target = np.array(rows), np.array(seen)
    (step_s, call_s), *_ = np.linalg.lstsq(matrix, target, rcond=None)
    left = float(np.abs(matrix @ (step_s, call_s) - target).mean())
    return HostFit(float(step_s), float(call_s), left)


def cell_errors(data: Path, gpu: str, engine: Engine, call_s: float, kind: str) -> Iterator[tuple[str, float]]:
    """Relative error of the mean time of every cell with more than one request at a time."""
    for size in SIZES[kind]:
        for dataset in DATASETS:
            batches = read_batches(data, gpu, dataset, size, kind)
            if not batches:
                continue
            made = (predicted_s(batch, prices(data, gpu, engine, batch), engine)[0] + call_s for batch in batches)
            yield f"{dataset} x {size}", sum(made) / sum(batch.seen_s for batch in batches) - 1.0
