"""The tables that the fits need, as published: all rows accounted for, and the routing that their times show."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sim.calibration.checks import Trace
from sim.calibration.importers import aiconfigurator

SET_ASIDE = {
    "h200_sxm/gemm/vllm/0.24.0/gemm_perf.parquet": 0,
    "h200_sxm/moe/trtllm/1.3.0rc20/moe_perf.parquet": 4698,  # top-1 of 16
    "h200_sxm/attention/vllm/0.24.0/context_attention_perf.parquet": 0,
    "h200_sxm/attention/vllm/0.24.0/generation_attention_perf.parquet": 0,
    "h200_sxm/comm/vllm/0.24.0/custom_allreduce_perf.parquet": 0,
    "a100_sxm/moe/sglang/0.5.10/moe_perf.parquet": 16,  # timed twice, more than a quarter apart
    "a100_sxm/attention/trtllm/1.0.0/generation_attention_perf.parquet": 257,  # up to 1.7 x the memory bandwidth
    "l40s/gemm/sglang/0.5.14/gemm_perf.parquet": 0,
}


@pytest.fixture(scope="module")
def database(shared_data: Path) -> Path:
    return shared_data / "aiconfigurator"


@pytest.fixture(scope="module")
def vllm_experts(database: Path) -> Trace:
    return aiconfigurator.read_table(database / "h200_sxm/moe/vllm/0.24.0/moe_perf.parquet")


@pytest.mark.parametrize("table", SET_ASIDE)
def test_every_published_row_is_used_or_counted(database: Path, table: str) -> None:
    with (database / "MANIFEST.csv").open() as file:
        published = {row["path"]: row["rows"] for row in csv.DictReader(file)}
    result = aiconfigurator.read_table(database / table)
    rejected = sum(item.rows for item in result.rejected)
    assert len(result.rows) + rejected == int(published[table])
    assert rejected == SET_ASIDE[table]
    assert all(item.source == table for item in result.rejected)


def test_two_rows_a_case_where_a_row_holds_dispatch_and_combine(database: Path) -> None:
    table = database / "h200_sxm/comm/sglang/0.5.12/wideep_deepep_normal_perf.parquet"
    rows = aiconfigurator.read_table(table).rows
    assert (rows["op"] == "moe_dispatch").sum() == (rows["op"] == "moe_combine").sum() == 2484


def test_experts_hit_agree_with_an_independent_simulation(vllm_experts: Trace) -> None:
    """128 experts, top-8: another simulation of the collector's power law of 1.2, by tokens, within 2 %."""
    rows = vllm_experts.rows
    shape = (rows["experts"] == 128) & (rows["hidden"] == 2048) & (rows["dtype"] == "bf16")
    one = (rows["tensor_parallel"] == 1) & (rows["expert_parallel"] == 1) & (rows["routing"] == "power_law_1.2")
    hit = rows[shape & one].set_index("tokens")["distinct_experts"]
    expected = {1: 8, 2: 16, 4: 29, 8: 43, 16: 59, 32: 106, 64: 119, 128: 126}
    assert {tokens: hit[tokens] for tokens in expected} == pytest.approx(expected, rel=0.02)
    assert [item.rows for item in vllm_experts.rejected] == [351]  # DeepSeek-V3's gate


def test_balanced_times_follow_the_experts_that_bf16_spreading_hits(vllm_experts: Trace) -> None:
    """48 tokens over 512 experts take 0.71 of the time of 96, as 361 experts do; 473 would take 0.92."""
    rows = vllm_experts.rows
    of_shape = (rows["experts"] == 512) & (rows["hidden"] == 4096) & (rows["dtype"] == "bf16")
    one = (rows["tensor_parallel"] == 1) & (rows["expert_parallel"] == 1) & (rows["routing"] == "balanced")
    case = rows[of_shape & one].set_index("tokens")
    time = case.loc[48, "latency_s"] / case.loc[96, "latency_s"]
    assert time == pytest.approx(case.loc[48, "distinct_experts"] / case.loc[96, "distinct_experts"], rel=0.05)
