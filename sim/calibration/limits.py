"""The least time physics allows a timed case: arithmetic at the peak, or bytes beyond the L2 from memory.

Only what cannot be avoided is counted (each weight and each KV element once, no activations), and the whole L2 is
granted, since most collectors replay the same buffers. A row below it was not measured as it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.calibration.trace import OPS
from sim.hardware import Gpu

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

WEIGHT_BYTES = {
    "fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "int8": 1.0, "int8_weight_only": 1.0,
    "int4_weight_only": 0.5, "mxfp4_weight_only": 0.53125, "nvfp4": 0.5625,
}  # fmt: skip
"""dtype -> bytes per weight or KV element; block scales are counted for the four-bit formats that fix their size."""

_PEAK = {"fp32": "fp32", "fp8": "fp8", "fp8_block": "fp8", "int8": "int8", "nvfp4": "fp4"}
"""dtype -> dtype of the arithmetic; what is not listed computes in bf16."""

LIMITED = ("gemm", "lm_head", "experts", "attention_prefill", "attention_decode")


def least_seconds(rows: pd.DataFrame, op: str, dtype: str, gpu: Gpu) -> Floats:
    """Seconds that each of `rows` (one op of `LIMITED`, one dtype, shapes complete) takes at least; 0 where unknown."""
    flops, size = _WORK[op](rows, WEIGHT_BYTES[dtype])
    least: Floats = np.maximum(size - gpu.l2_bytes, 0) / gpu.memory_bandwidth_bytes_per_s
    peak = gpu.peak_flops_per_s.get(_PEAK.get(dtype, "bf16"))
    return np.maximum(least, flops / peak) if peak else least


def complete(rows: pd.DataFrame, op: str) -> NDArray[np.bool_]:
    """Rows of `op` whose shape columns are all there."""
    needed = [name for name in OPS[op] if name not in ("routing", "kv_dtype")]
    places = np.flatnonzero((rows["op"] == op).to_numpy(bool))
    mask = np.zeros(len(rows), bool)
    if places.size:
        mask[places] = rows[needed].iloc[places].notna().to_numpy().all(1)
    return mask


def _gemm(rows: pd.DataFrame, weight_bytes: float) -> tuple[Floats, Floats]:
    m, n, k = _columns(rows, "m", "n", "k")
    return 2 * m * n * k, n * k * weight_bytes


def _lm_head(rows: pd.DataFrame, weight_bytes: float) -> tuple[Floats, Floats]:
    tokens, hidden, vocabulary = _columns(rows, "tokens", "hidden", "vocabulary")
    return 2 * tokens * hidden * vocabulary, hidden * vocabulary * weight_bytes


def _experts(rows: pd.DataFrame, weight_bytes: float) -> tuple[Floats, Floats]:
    """Only where routing fixes the load: a skewed draw of few tokens may hit fewer experts than expected."""
    hidden, width, shards, distinct = _columns(rows, "hidden", "expert_width", "tensor_parallel", "distinct_experts")
    pairs = rows["routed_tokens"].fillna(0).to_numpy(np.float64)
    weights = np.where(rows["gated"].fillna(value=True).to_numpy(bool), 3, 2) * hidden * width / shards
    fixed = rows["routing"].isin(["balanced", "forced"]).to_numpy(bool)
    return 2 * pairs * weights * fixed, distinct * weights * weight_bytes * fixed


def _attention(rows: pd.DataFrame, _: float) -> tuple[Floats, Floats]:
    batch, width, context, window = _columns(rows, "batch", "width", "context_tokens", "window_tokens")
    heads, kv_heads, head_dim = _columns(rows, "heads", "kv_heads", "head_dim")
    reach = np.where(window > 0, window, np.inf)
    short = np.clip(reach - context, 0, width)  # queries that see all there is
    pairs = short * context + short * (short + 1) / 2 + np.where(short < width, (width - short) * window, 0)
    kv_bytes = rows["kv_dtype"].map(WEIGHT_BYTES).fillna(0).to_numpy(np.float64)
    cached = 2 * np.minimum(context, reach) * kv_heads * head_dim * kv_bytes
    return 4 * batch * pairs * heads * head_dim, batch * cached


def _columns(rows: pd.DataFrame, *names: str) -> list[Floats]:
    return [rows[name].to_numpy(np.float64) for name in names]


_WORK = {
    "gemm": _gemm,
    "lm_head": _lm_head,
    "experts": _experts,
    "attention_prefill": _attention,
    "attention_decode": _attention,
}
