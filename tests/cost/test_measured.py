"""Against measured kernels: quoted columns of published tables, and the tables themselves where they are at hand.

The quoted figures are medians of the AIConfigurator database (Apache-2.0), H200 under vLLM 0.24.0, in microseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.attention import Attention, Linear
from sim.cost.attention import RankAttention
from sim.cost.comm import Collectives
from sim.cost.constants import Constants, calibrated
from sim.cost.dense import linears_seconds
from sim.cost.moe import RankExperts
from sim.cost.shape import StepShape
from sim.cost.work import Peaks
from sim.hardware import read_gpu, read_link
from sim.layers import Ffn
from tests.cost.examples import TABLES, on

TOKENS = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
MOE_US = {  # (hidden, width, E, K), balanced routing
    (2048, 768, 128, 8): [40.3, 57.8, 94.3, 172, 305, 305, 316, 316, 339, 350, 406, 462, 691],
    (4096, 1536, 128, 8): [96, 164, 298, 575, 1097, 1105, 1130, 1169, 1196, 1232, 1377, 1486, 2348],
    (4096, 14336, 8, 2): [212, 348, 668, 657, 664, 689, 673, 688, 753, 798, 1093, 2101, 4222],
}
GEMM_US = {1: 28.7, 16: 30.9, 64: 29.1, 128: 29.3, 192: 36.3, 256: 37.5, 512: 63.8, 1024: 127.5, 4096: 525.0}
"""n = 12,288, k = 4,096."""


def error(predicted: Any, measured: Any) -> float:
    return float(np.mean(np.abs(np.asarray(predicted) / np.asarray(measured) - 1.0)))


def balanced(tokens: Any, experts: Any, per_token: Any) -> Any:
    """Round-robin routing of the benchmark: as many experts as there are rows."""
    return np.minimum(experts, np.multiply(tokens, per_token)).astype(float)


@pytest.mark.parametrize(("shape", "bound"), list(zip(MOE_US, (0.06, 0.06, 0.12), strict=True)))
def test_moe_layer_follows_the_measured_column(shape: tuple[int, int, int, int], bound: float) -> None:
    hidden, width, experts, per_token = shape
    constants, peaks = on("h200_sxm")
    ffn = Ffn(kind="moe", experts=experts, experts_per_token=per_token, expert_width=width)
    layer = RankExperts(ffn, hidden, 2.0)
    seconds = layer.seconds(balanced(TOKENS, experts, per_token), TOKENS, constants.experts, peaks)
    assert error(1e6 * np.asarray(seconds), MOE_US[shape]) < bound


def test_dense_gemm_follows_the_measured_column() -> None:
    constants, peaks = on("h200_sxm")
    linear = Linear("up", 12288, 4096, "column")
    tokens = np.array(list(GEMM_US))
    seconds = linears_seconds([linear], tokens, 2.0, 1, constants.dense, peaks)
    assert error(1e6 * np.asarray(seconds), list(GEMM_US.values())) < 0.10


def read(constants: Constants, family: str, table: str) -> Any:
    """The rows of the version that the calibration file names."""
    pandas = pytest.importorskip("pandas")
    name = constants.gpu.replace("a100_80gb_sxm", "a100_sxm")
    pattern = f"{name}/{family}/{constants.engine}/*/{table}.parquet"
    paths: list[Path] = sorted(TABLES.glob(pattern))
    if not paths:
        pytest.skip(f"no {pattern} under the shared data")
    return pandas.read_parquet(paths[-1])


def peaks_of(constants: Constants) -> Peaks:
    gpu = read_gpu(constants.gpu)
    return Peaks(gpu.flops_per_s("bf16"), gpu.memory_bandwidth_bytes_per_s, gpu.sm_count)


def stated(part: Any, found: float, what: str) -> None:
    """A calibration file says what it achieves, to one point."""
    assert part.error is not None
    assert abs(found - part.error) < 0.01, f"{what}: found {found:.3f}, stated {part.error}"


each_file = pytest.mark.parametrize("constants", calibrated(), ids=lambda c: f"{c.gpu}_{c.engine}")


@each_file
def test_experts_table(constants: Constants) -> None:
    rows = read(constants, "moe", "moe_perf")
    rows = rows[
        (rows.moe_dtype == "bfloat16")
        & (rows.moe_tp_size == 1)
        & (rows.moe_ep_size == 1)
        & (rows.num_tokens <= 4096)
        & (rows.distribution == "balanced")
        & rows.topk.isin((2, 4, 8, 10))
    ]
    predicted, measured = [], []
    keys = ["hidden_size", "inter_size", "num_experts", "topk"]
    for (hidden, width, experts, per_token), group in rows.groupby(keys):
        best = group.groupby("num_tokens").latency.min()
        tokens = best.index.to_numpy()
        layer = RankExperts(
            Ffn(kind="moe", experts=experts, experts_per_token=per_token, expert_width=width), hidden, 2.0
        )
        distinct = balanced(tokens, experts, per_token)
        seconds = np.asarray(layer.seconds(distinct, tokens, constants.experts, peaks_of(constants)))
        # Smaller sets stay in the L40S's large L2 between the replays of the benchmark.
        cold = distinct * layer.expert_elements * 2 > (96e6 if constants.gpu == "l40s" else 0)
        predicted.extend(seconds[cold])
        measured.extend(best.to_numpy()[cold] * 1e-3)
    stated(constants.experts, error(predicted, measured), f"experts, {len(measured)} rows")


@each_file
def test_gemm_table(constants: Constants) -> None:
    rows = read(constants, "gemm", "gemm_perf")
    rows = rows[(rows.gemm_dtype == "bfloat16") & (rows.n >= 1024) & (rows.k >= 1024) & (rows.m <= 8192)]
    predicted, measured = [], []
    for (n, k), group in rows.groupby(["n", "k"]):
        linear = Linear("w", int(n), int(k), "column")
        predicted.extend(
            np.asarray(linears_seconds([linear], group.m.to_numpy(), 2.0, 1, constants.dense, peaks_of(constants)))
        )
        measured.extend(group.latency.to_numpy() * 1e-3)
    stated(constants.dense, error(predicted, measured), f"dense GEMM, {len(measured)} rows")


def attention_rows(constants: Constants, table: str) -> Any:
    rows = read(constants, "attention", table)
    rows = rows[(rows.kv_cache_dtype == "bfloat16") & (rows.head_dim == 128)]
    rows = rows[rows.num_heads % rows.num_key_value_heads == 0]
    return rows[rows.window_size == 0] if "window_size" in rows else rows


@each_file
def test_decode_attention_table(constants: Constants) -> None:
    rows = attention_rows(constants, "generation_attention_perf")
    predicted, measured = [], []
    for (heads, kv_heads), group in rows.groupby(["num_heads", "num_key_value_heads"]):
        rank = RankAttention(Attention(heads=heads, kv_heads=kv_heads, head_dim=128), 1, 2.0, 0.0)
        batch = group.batch_size.to_numpy().astype(np.int64)
        shape = StepShape(sequences=batch, context_tokens=batch * group.step.to_numpy())
        seconds = np.asarray(rank.decode(shape, constants.attention_decode, peaks_of(constants)))
        cold = np.asarray(rank.decode_work(shape).bytes) > (96e6 if constants.gpu == "l40s" else 0)
        predicted.extend(seconds[cold])
        measured.extend(group.latency.to_numpy()[cold] * 1e-3)
    stated(constants.attention_decode, error(predicted, measured), f"decode attention, {len(measured)} rows")


@each_file
def test_prefill_attention_table(constants: Constants) -> None:
    rows = attention_rows(constants, "context_attention_perf")
    predicted, measured = [], []
    for (heads, kv_heads), group in rows.groupby(["num_heads", "num_key_value_heads"]):
        rank = RankAttention(Attention(heads=heads, kv_heads=kv_heads, head_dim=128), 1, 2.0, 0.0)
        batch, prompt = (group[name].to_numpy().astype(np.int64) for name in ("batch_size", "isl"))
        pairs = batch * (prompt * (prompt + 1) // 2)
        shape = StepShape(chunks=batch, prefill_tokens=batch * prompt, prefill_pairs=pairs)
        predicted.extend(np.asarray(rank.prefill(shape, constants.attention_prefill, peaks_of(constants))))
        measured.extend(group.latency.to_numpy() * 1e-3)
    stated(constants.attention_prefill, error(predicted, measured), f"prefill attention, {len(measured)} rows")


@each_file
def test_all_reduce_table(constants: Constants) -> None:
    rows = read(constants, "comm", "custom_allreduce_perf")
    rows = rows[rows.backend.str.contains("graph")]
    link = read_link(read_gpu(constants.gpu).link)
    predicted, measured = [], []
    for ranks, group in rows.groupby("num_gpus"):
        message = group.message_size.to_numpy() * 2
        predicted.extend(np.asarray(Collectives(constants.allreduce, link, int(ranks)).all_reduce(message)))
        measured.extend(group.latency.to_numpy() * 1e-3)
    stated(constants.allreduce, error(predicted, measured), f"all-reduce, {len(measured)} rows")
