"""Kernel traces made from known constants, so that a fit can be held to the truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.calibration.checks import frame
from sim.calibration.form import Form
from sim.calibration.forms_attention import DecodeForm
from sim.calibration.forms_gemm import DenseForm
from sim.cost.efficiency import DecodeEfficiency, DenseEfficiency
from sim.hardware import read_gpu

GPU = read_gpu("h100_sxm")

DENSE = DenseEfficiency(
    memory_efficiency=0.8, compute_efficiency=0.7, fixed_s=2.5e-6, exponent=3.0, chain_s=4e-6, chain_rows_s=2e-6,
    chain_exponent=1.8, depth_offset=120.0, source="made up",
)  # fmt: skip
DECODE = DecodeEfficiency(
    memory_efficiency=0.85, compute_efficiency=0.5, fixed_s=8e-6, exponent=1.5, wave_s=2e-6, wave_width_s=1e-6,
    sequence_s=1e-8, split_s=1.2e-6, token_s=1e-9, split_tokens=2000.0, l2_efficiency=1.3, source="made up",
)  # fmt: skip

COMMON = {"gpu": GPU.name, "engine": "vllm", "engine_version": "1", "dtype": "bf16", "graph": True, "source": "made up"}


def dense_rows(shapes: int = 12, noise: float = 0.02, seed: int = 0) -> Any:
    """GEMMs of `shapes` shapes at 24 row counts, priced by DENSE with lognormal noise."""
    rng = np.random.default_rng(seed)
    sides = 128 * rng.integers(8, 200, (shapes, 2))
    m = np.unique(np.geomspace(1, 8192, 24).astype(np.int64))
    grid = np.array([(rows, n, k) for n, k in sides for rows in m])
    rows = frame(len(grid), {**COMMON, "op": "gemm", "m": grid[:, 0], "n": grid[:, 1], "k": grid[:, 2]})
    return priced(DenseForm(), rows, DENSE, noise, rng)


def decode_rows(noise: float = 0.02, seed: int = 0) -> Any:
    """Decode attention of nine head shapes over batches and contexts, priced by DECODE."""
    rng = np.random.default_rng(seed)
    heads = [(kv * ratio, kv, dim) for kv in (1, 4, 8) for ratio, dim in ((1, 128), (4, 128), (8, 64))]
    sizes = [(batch, context) for batch in (1, 4, 16, 64, 256) for context in (127, 511, 2047, 8191, 32767)]
    grid = np.array([(*head, *size) for head in heads for size in sizes])
    names = ("heads", "kv_heads", "head_dim", "batch", "context_tokens")
    shape = dict(zip(names, grid.T, strict=True))
    rows = frame(
        len(grid), {**COMMON, "op": "attention_decode", "kv_dtype": "bf16", "width": 1, "window_tokens": 0, **shape}
    )
    return priced(DecodeForm(), rows, DECODE, noise, rng)


def priced(form: Form, rows: Any, truth: Any, noise: float, rng: np.random.Generator) -> Any:
    """`rows` with the latency of `truth`."""
    rows = rows.assign(latency_s=1.0)
    judged = form.judged(rows, GPU)
    assert judged is not None
    assert len(judged.rows) == len(rows)
    return rows.assign(latency_s=form.price(truth, judged) * np.exp(rng.normal(0.0, noise, len(rows))))
