"""AIConfigurator's tables: units, shapes, what is set aside; and its synthetic routing, against draws one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.calibration.importers import aiconfigurator
from sim.calibration.importers.expert_loads import balanced_load, power_law_load
from tests.calibration import tables

ATTENTION = {
    "attn_dtype": "bfloat16", "kv_cache_dtype": "fp8", "num_heads": 8, "num_key_value_heads": 2, "head_dim": 128,
    "window_size": 0,
}  # fmt: skip
EXPERTS = {
    "moe_dtype": "bfloat16", "num_tokens": [1, 16, 512], "hidden_size": 2048, "inter_size": 768, "topk": 8,
    "num_experts": 128, "moe_tp_size": 1, "moe_ep_size": 1, "distribution": "balanced", "latency": [0.04, 0.3, 0.35],
}  # fmt: skip


def test_milliseconds_become_seconds_and_the_source_is_named(tmp_path: Path) -> None:
    result = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "gemm_perf", tables.gemm_rows()))
    assert result.rejected == ()
    assert list(result.rows["latency_s"]) == pytest.approx([12e-6, 13e-6, 14e-6, 20e-6])
    row = result.rows.iloc[1]
    assert (row["gpu"], row["engine"], row["dtype"], row["graph"]) == ("h200_sxm", "vllm", "bf16", True)
    assert (row["m"], row["source_row"], row["source"]) == (16, 1, "h200_sxm/family/vllm/0.24.0/gemm_perf.parquet")


def test_block_scaled_gemms_of_vllm_0_24_were_eager(tmp_path: Path) -> None:
    rows = tables.gemm_rows(gemm_dtype=["fp8_block", "fp8", "bfloat16", "fp8_block"])
    result = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "gemm_perf", rows))
    assert list(result.rows["graph"]) == [False, True, True, False]


def test_attention_keeps_new_and_cached_tokens_apart(tmp_path: Path) -> None:
    rows = {**ATTENTION, "batch_size": [1, 64], "isl": 1, "step": [2, 4095], "latency": [0.01, 0.2]}
    decode = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "generation_attention_perf", rows)).rows
    assert list(decode["op"].unique()) == ["attention_decode"]
    assert list(decode["width"]) == [1, 1]
    assert list(decode["context_tokens"]) == [2, 4095]
    assert list(decode["kv_dtype"]) == ["fp8", "fp8"]
    rows = {**ATTENTION, "batch_size": [1, 4], "isl": [512, 2048], "step": 0, "latency": [0.05, 1.0]}
    del rows["window_size"]  # older tables lack the column: full attention
    prefill = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "context_attention_perf", rows)).rows
    assert list(prefill["width"]) == [512, 2048]
    assert list(prefill["window_tokens"]) == [0, 0]


def test_messages_are_counted_in_bytes(tmp_path: Path) -> None:
    rows = {
        "allreduce_dtype": "bfloat16", "num_gpus": [2, 8], "message_size": 1024, "latency": [0.004, 0.005],
        "backend": ["vllm_custom_graph", "vllm_custom_eager"],
    }  # fmt: skip
    result = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "custom_allreduce_perf", rows)).rows
    assert list(result["message_bytes"]) == [2048, 2048]
    assert list(result["graph"]) == [True, False]
    rows = {"nccl_dtype": ["half", "int8"], "op_name": "alltoall", "num_gpus": 8, "message_size": 1024, "latency": 0.02}
    result = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "nccl_perf", rows)).rows
    assert list(result["message_bytes"]) == [2048, 1024]
    assert set(result["op"]) == {"all_to_all"}
    rows = {
        "comm_dtype": "bfloat16", "num_tokens": [1, 128], "hidden_size": 2048, "topk": 8, "num_experts": 128,
        "ep_size": 8, "phase": ["dispatch", "combine"], "comm_backend": "deepep_ll", "sms": 0, "latency": [9.0, 25.0],
    }  # fmt: skip
    result = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "moe_a2a_perf", rows)).rows
    assert list(result["op"]) == ["moe_dispatch", "moe_combine"]
    assert list(result["latency_s"]) == pytest.approx([9e-6, 25e-6])  # microseconds in this table


def test_experts_carry_what_their_routing_hit(tmp_path: Path) -> None:
    result = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "moe_perf", EXPERTS)).rows
    assert list(result["distinct_experts"]) == [8, 128, 128]
    assert list(result["routed_tokens"]) == [8, 128, 4096]
    skewed = tables.aiconfigurator(tmp_path, "moe_perf", {**EXPERTS, "distribution": "power_law_1.2"})
    hit = aiconfigurator.read_table(skewed).rows["distinct_experts"]
    assert hit.iloc[0] == 8
    assert 50 < hit.iloc[1] < 70


def test_balanced_logits_of_deepseek_v3_meet_its_grouped_gate(tmp_path: Path) -> None:
    shape = {"moe_dtype": "fp8_block", "hidden_size": 7168, "inter_size": 2048, "num_experts": 256}
    rows = {**EXPERTS, **shape, "latency": [0.12, 0.9, 2.5], "num_tokens": [1, 16, 512]}
    result = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "moe_perf", rows))
    assert [(item.rows, "grouped gate" in item.reason) for item in result.rejected] == [(3, True)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (tables.gemm_rows(gemm_dtype="bf17"), r"gemm_perf\.parquet: row 0: gemm_dtype must be one of .*, got 'bf17'"),
        ({"gemm_dtype": "fp8", "m": [1], "k": 4096, "latency": 0.1}, r"gemm_perf\.parquet: column 'n' is missing"),
    ],
)
def test_unknown_words_and_missing_columns_are_refused(tmp_path: Path, rows: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "gemm_perf", rows))


def test_impossible_rows_are_set_aside_with_row_and_reason(tmp_path: Path) -> None:
    rows = tables.gemm_rows(m=[1, 16, 16, 32768], latency=[0.012, 0.0, float("nan"), 0.1])
    result = aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "gemm_perf", rows))
    assert {item.reason: (item.rows, item.first_row) for item in result.rejected} == {
        "latency_s is not a number": (1, 2),
        "latency_s must be > 0": (1, 1),
        "gemm faster than the peaks of h200_sxm allow": (1, 3),
    }
    assert len(result.rows) == 1
    unknown = tables.aiconfigurator(tmp_path, "gemm_perf", tables.gemm_rows(device="NVIDIA H300"))
    assert "gpu is 'NVIDIA H300'" in aiconfigurator.read_table(unknown).rejected[0].reason


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    text = tmp_path / "gemm_perf.parquet"
    text.write_text("not parquet")
    with pytest.raises(ValueError, match=r"gemm_perf\.parquet: not a Parquet file"):
        aiconfigurator.read_table(text)
    with pytest.raises(ValueError, match="no importer for a table of that name; known: gemm_perf"):
        aiconfigurator.read_table(tables.aiconfigurator(tmp_path, "gemv_perf", tables.gemm_rows()))
    with pytest.raises(FileNotFoundError):
        aiconfigurator.read_table(tmp_path / "moe_perf.parquet")


def _one_draw(
    rng: np.random.Generator, tokens: int, experts: int, per_token: int, ranks: int, exponent: float
) -> float:
    """Distinct experts of the fullest rank, the collector's procedure spelled out unit by unit."""
    low, high = (1.0, 0.8 * tokens) if tokens * per_token > experts else (0.01, 2.0)
    share = 1 - exponent
    loads = ((high**share - low**share) * rng.random(experts) + low**share) ** (1 / share)
    counts = np.rint(loads / loads.sum() * tokens * per_token).astype(int)
    over = int(np.maximum(counts - tokens, 0).sum())
    by_rank = np.minimum(counts, tokens).reshape(ranks, -1)
    rank = 0
    while over or (missing := tokens * per_token - by_rank.sum()):
        local = by_rank[rank % ranks]
        if over or missing > 0:
            if local.min() < tokens:
                local[local.argmin()] += 1
                over = max(over - 1, 0)
        elif local.max() > 0:
            local[local.argmax()] -= 1
        rank += 1
    return float(np.count_nonzero(by_rank[by_rank.sum(1).argmax()]))


@pytest.mark.parametrize(
    ("tokens", "experts", "ranks"), [(1, 128, 1), (8, 128, 1), (32, 128, 1), (64, 8, 1), (16, 128, 4)]
)
def test_power_law_loads_agree_with_single_draws(tokens: int, experts: int, ranks: int) -> None:
    """The mean of 300 draws, within four standard errors plus the 2 % of the stratified mean."""
    rng = np.random.default_rng(1)
    per_token = min(8, experts // 4)
    draws = np.array([_one_draw(rng, tokens, experts, per_token, ranks, 1.2) for _ in range(300)])
    load = power_law_load((tokens,), experts, per_token, ranks, 1.2)
    assert load.distinct_experts[0] == pytest.approx(
        draws.mean(), abs=4 * draws.std() / np.sqrt(len(draws)) + 0.02 * draws.mean()
    )


@pytest.mark.parametrize("experts", [8, 128, 512])
def test_loads_are_conserved_and_bounded(experts: int) -> None:
    tokens = (1, 3, 16, 257, 4096)
    for ranks in (1, 4):
        for exponent in (1.01, 1.2):
            load = power_law_load(tokens, experts, 2, ranks, exponent)
            total = 2.0 * np.array(tokens)
            assert (load.routed_tokens >= total / ranks - 1e-9).all()  # the fullest rank
            assert (load.distinct_experts <= np.minimum(experts // ranks, load.routed_tokens)).all()
            if ranks == 1:
                np.testing.assert_allclose(load.routed_tokens, total)


def test_bf16_spreading_collides_above_expert_256() -> None:
    """512 experts, top-10, 48 tokens: vLLM's tables take the time of 361 experts, those of the others of 473."""
    tokens = np.array([16, 48, 64])
    assert balanced_load(tokens, 512, 10, 1).distinct_experts.tolist() == [160, 473, 512]
    assert balanced_load(tokens, 512, 10, 1, in_bf16=True).distinct_experts.tolist() == [159, 361, 512]
    few = balanced_load(tokens, 128, 8, 1, in_bf16=True).distinct_experts
    np.testing.assert_array_equal(few, np.minimum(8 * tokens, 128))


def test_power_law_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match="experts must be a multiple of ranks, got 10 and 4"):
        power_law_load((1,), 10, 2, 4, 1.2)
    with pytest.raises(ValueError, match="exponent must not be 1"):
        power_law_load((1,), 8, 2, 1, 1.0)
