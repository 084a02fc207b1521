"""Bad rows: each is refused with file and row, or set aside with a count and the reason; none is averaged in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.calibration import checks, trace

GEMM: dict[str, Any] = {
    "gpu": "h200_sxm", "engine": "torch", "dtype": "bf16", "op": "gemm", "m": 16, "n": 4096, "k": 4096,
    "latency_s": 13e-6, "status": "ok",
}  # fmt: skip
DECODE: dict[str, Any] = {
    "gpu": "h200_sxm", "engine": "torch", "dtype": "bf16", "kv_dtype": "bf16", "op": "attention_decode", "batch": 64,
    "width": 4, "context_tokens": 32768, "heads": 32, "kv_heads": 8, "head_dim": 128, "window_tokens": 0,
    "latency_s": 2e-3, "status": "ok",
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "gpu": "h200_sxm", "engine": "torch", "dtype": "bf16", "op": "experts", "tokens": 64, "hidden": 2048,
    "experts": 128, "experts_per_token": 8, "expert_width": 768, "tensor_parallel": 1, "expert_parallel": 1,
    "routing": "balanced", "distinct_experts": 128.0, "routed_tokens": 512.0, "gated": True, "latency_s": 300e-6,
    "status": "ok",
}  # fmt: skip


def loaded(tmp_path: Path, *rows: dict[str, Any]) -> checks.Trace:
    path = tmp_path / "t.parquet"
    trace.write_rows(path, list(rows))
    return checks.load(path)


@pytest.mark.parametrize("good", [GEMM, DECODE, EXPERTS])
def test_a_plausible_row_stays(tmp_path: Path, good: dict[str, Any]) -> None:
    assert loaded(tmp_path, good).rejected == ()


@pytest.mark.parametrize(
    ("good", "change", "reason"),
    [
        (GEMM, {"latency_s": 0.0}, "latency_s must be > 0"),
        (GEMM, {"latency_s": -1e-6}, "latency_s must be > 0"),
        (GEMM, {"latency_s": math.nan}, "latency_s is not a number"),
        (GEMM, {"latency_s": math.inf}, "latency_s is not a number"),
        (GEMM, {"latency_s": None}, "latency_s is not a number"),
        (GEMM, {"status": "failed"}, "a case that did not run has a latency_s"),
        (GEMM, {"status": "slow"}, "status is 'slow'; known: ok, out_of_memory, failed"),
        (GEMM, {"gpu": "h300"}, "gpu is 'h300'; no file in hardware_specs/gpu bears that name"),
        (GEMM, {"dtype": "bfloat16"}, "dtype is 'bfloat16'; known: fp32"),
        (GEMM, {"dtype": None}, "dtype is empty"),
        (GEMM, {"op": "gemmm"}, "op is 'gemmm'; known: gemm"),
        (GEMM, {"k": None}, "k is empty; gemm needs it"),
        (GEMM, {"m": 0}, "m of gemm must be >= 1"),
        (DECODE, {"context_tokens": -1}, "context_tokens of attention_decode must be >= 0"),
        (DECODE, {"kv_dtype": "int3"}, "kv_dtype is 'int3'"),
        (EXPERTS, {"distinct_experts": None}, "distinct_experts is empty; experts needs it"),
        # 33.6 MB of weights fit the L2, so that only arithmetic bounds them: 1.1 PFLOP in 1 ms
        (GEMM, {"m": 32768, "latency_s": 1e-3}, "gemm faster than the peaks of h200_sxm allow"),
        # 537 MB of weights at 4.8 TB/s take 102 us beyond the L2
        (GEMM, {"n": 65536, "latency_s": 80e-6}, "gemm faster than the peaks of h200_sxm allow"),
        # 8.6 GB of KV cache
        (DECODE, {"latency_s": 1.5e-3}, "attention_decode faster than the peaks of h200_sxm allow"),
        (EXPERTS, {"latency_s": 200e-6}, "experts faster than the peaks of h200_sxm allow"),
    ],
)
def test_a_bad_row_is_set_aside_and_refused_by_name(
    tmp_path: Path, good: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    """Beside a good row, so that the number of the bad one counts."""
    result = loaded(tmp_path, good, {**good, **change})
    assert [(item.rows, item.first_row) for item in result.rejected] == [(1, 1)]
    assert result.rejected[0].reason.startswith(reason)
    assert len(result.rows) == 1
    with pytest.raises(ValueError, match=r"t\.parquet: row 1: .*set aside.*correct or drop"):
        checks.read(tmp_path / "t.parquet")


def test_a_skewed_draw_may_hit_fewer_experts_than_expected(tmp_path: Path) -> None:
    assert loaded(tmp_path, {**EXPERTS, "routing": "power_law_1.2", "latency_s": 200e-6}).rejected == ()


def test_a_window_shortens_what_attention_must_read(tmp_path: Path) -> None:
    assert loaded(tmp_path, {**DECODE, "window_tokens": 128, "latency_s": 20e-6}).rejected == ()


def test_cases_that_ran_out_of_memory_stay_without_latency(tmp_path: Path) -> None:
    result = loaded(tmp_path, {**GEMM, "latency_s": None, "status": "out_of_memory"})
    assert result.rejected == ()
    assert len(result.rows) == 1


def test_repeated_timings_stay_where_they_agree_and_all_go_where_they_do_not(tmp_path: Path) -> None:
    """Rows 0 and 1 agree within 5 %, rows 2 and 3 differ by half; the kernel that ran is part of the case."""
    rows = [
        GEMM,
        {**GEMM, "latency_s": 13.6e-6, "source_row": 9},
        {**GEMM, "m": 64},
        {**GEMM, "m": 64, "latency_s": 20e-6},
        {**GEMM, "m": 64, "latency_s": 20e-6, "kernels": "another"},
    ]
    result = loaded(tmp_path, *rows)
    assert [(item.rows, item.first_row) for item in result.rejected] == [(2, 2)]
    assert "differ by more than 25%" in result.rejected[0].reason
    assert list(result.rows["latency_s"]) == [13e-6, 13.6e-6, 20e-6]


def test_counts_of_what_is_set_aside_add_up() -> None:
    """A row with two faults counts once, under the first."""
    latency = np.array([1e-5, -1.0, np.nan, 1e-5])
    rows = checks.frame(4, {**GEMM, "m": [16, 0, 16, 0], "latency_s": latency})
    result = checks.sift(rows, "here")
    assert sum(item.rows for item in result.rejected) + len(result.rows) == 4
    assert len(result.rows) == 1


def test_frames_refuse_unknown_columns() -> None:
    with pytest.raises(ValueError, match="a kernel trace has no column latency_ms"):
        checks.frame(1, {"latency_ms": 1.0})
    assert len(checks.concat([]).rows) == 0
