"""Predicted speedups of published rows: which engine constants each is priced with, and the length fitted to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sim.cost.host import Engine, read_engine
from sim.cost.routing import TrainedGate, Uniform
from validation.speculation_rows import ACCEPTED_IF_MATCHED, OVERLAP, Row, depth_of, drafter_of, target_of
from validation.speculation_steps import Deployment
from validation.speculation_stream import DATASETS, stream_speedup

Errors = NDArray[np.float64]
SIZES = (150, 300)
"""Prompt and output tokens where the source names neither: short questions, medium answers."""


def vllm() -> Engine:
    """vLLM 0.10, its rounds read off the Llama-3.1-8B rows of step_time_shares.csv."""
    return read_engine("vllm_0_10")


def sglang(row: Row) -> tuple[Engine, float]:
    """SGLang's host, and what a tree costs it more per round, s.

    0.5.9 is the preset, and 0.5 ms for a tree. Versions of 2025 on H100: step and round from the batch 1 rows on two
    GPUs (SpecForge issue 339); elsewhere the 1.7 ms (chain) and 3.6 ms (tree) per round that are reported for H200.
    """
    engine = read_engine("sglang_0_5")
    if row.engine == "SGLang 0.5.9":
        return engine, 0.5e-3
    step_s, round_s = (0.5e-3, 3.9e-3) if row.gpu == "h100_sxm" and row.engine == "SGLang" else (0.1e-3, 1.6e-3)
    return replace(engine, name=row.engine, step_host_s=step_s, round_host_s=round_s), 1.9e-3


@cache
def deployment(row: Row) -> Deployment:
    """What the row ran on."""
    is_sglang = row.engine.startswith("SGLang")
    prompt, output = DATASETS.get(row.dataset, SIZES)
    return Deployment(
        model=target_of(row), gpu=row.gpu, tensor_parallel=row.tensor_parallel,
        engine=sglang(row)[0] if is_sglang else vllm(), kernels="sglang" if is_sglang else "vllm",
        routing=TrainedGate(overlap=OVERLAP) if row.kind == "moe" else Uniform(),
        prompt_tokens=int(row.prompt_tokens) or prompt, output_tokens=int(row.output_tokens) or output,
    )  # fmt: skip


def steady_speedup(row: Row, length: float) -> float:
    """Speedup at the row's batch, held for ever."""
    served, drafter, batch = deployment(row), drafter_of(row, sglang(row)[1]), max(1, round(row.batch))
    assert drafter is not None
    cost = served.drafting(drafter, depth_of(row))
    width = 1.0 + (length - 1.0) / ACCEPTED_IF_MATCHED if row.drafter == "ngram" else 0.0
    return served.tokens_per_s(cost, batch, length, width) / served.tokens_per_s(served.plain, batch)


@cache
def predicted(row: Row, length: float) -> float:
    """Speedup of a row at an acceptance length: its data set's requests simulated where it is known, else steady."""
    if row.dataset in DATASETS and row.engine in {"vLLM 0.10.1", "SGLang 0.5.9"}:
        drafter = drafter_of(row, sglang(row)[1])
        assert drafter is not None
        return stream_speedup(deployment(row), row.dataset, round(row.batch), drafter, depth_of(row), length)
    return steady_speedup(row, length)


@cache
def fitted_length(row: Row) -> float:
    """The acceptance length at which `row` is met exactly, within what its drafts allow."""
    length = 1.0 + 0.4 * depth_of(row)
    for _ in range(3):
        length = float(np.clip(length * row.speedup / predicted(row, length), 1.0, 1.0 + depth_of(row)))
    return length


def errors(rows: Iterable[Row], length: Callable[[Row], float]) -> Errors:
    """Relative errors of the predicted speedups."""
    return np.array([predicted(row, length(row)) / row.speedup - 1.0 for row in rows])
