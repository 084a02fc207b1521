"""InferSim's CSV: microseconds, `mfu` as a check, and files that cannot be what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.calibration.importers import infersim
from tests.calibration.tables import csv

H20_FP8_FLOPS_PER_S = 296e12


def _gemm(latency_us: list[float], factor: float = 1.0) -> dict[str, object]:
    shape = {"m": [16, 32, 4096], "k": 2048, "n": 6144}
    flops = 2 * np.array(shape["m"]) * 2048 * 6144
    mfu = factor * flops / (np.array(latency_us) * 1e-6) / H20_FP8_FLOPS_PER_S
    return {**shape, "latency_us": latency_us, "mfu": mfu.tolist()}


def test_gemm_is_block_scaled_fp8_in_seconds(tmp_path: Path) -> None:
    result = infersim.read_file(csv(tmp_path / "gemm" / "h20" / "data.csv", _gemm([10.6, 10.7, 400.0])))
    assert result.rejected == ()
    assert set(result.rows["dtype"]) == {"fp8_block"}
    assert list(result.rows["latency_s"]) == pytest.approx([10.6e-6, 10.7e-6, 400e-6])
    assert list(result.rows["k"]) == [2048] * 3
    assert set(result.rows["gpu"]) == {"h20"}


def test_rows_whose_mfu_contradicts_them_are_set_aside(tmp_path: Path) -> None:
    result = infersim.read_file(csv(tmp_path / "gemm" / "h20" / "data.csv", _gemm([10.6, 10.7, 400.0], factor=0.5)))
    assert [(item.rows, item.first_row, item.reason) for item in result.rejected] == [
        (3, 0, "mfu does not follow from shape and latency")
    ]


def test_grouped_rows_tell_by_their_mfu_what_was_drawn(tmp_path: Path) -> None:
    """A mean of one row an expert leaves half of 256 experts idle; a mean of eight leaves none."""
    rows = np.array([128.0, 1950.0])  # drawn in all
    up = 2 * rows * 7168 * 4096 / (np.array([1300.0, 2700.0]) * 1e-6) / H20_FP8_FLOPS_PER_S
    table = {
        "num_experts": 256, "num_gpus": 1, "num_local_experts": 256, "topk": 8, "hidden_size": 7168,
        "intermediate_size": 2048, "batch_size_per_gpu": [32, 256], "tokens_per_expert": [1, 8],
        "up_proj_us": [1300.0, 2700.0], "up_mfu": up.tolist(),
        "down_proj_us": [650.0, 1350.0], "down_mfu": up.tolist(),
    }  # fmt: skip
    result = infersim.read_file(csv(tmp_path / "grouped_gemm" / "decode" / "h20" / "data.csv", table))
    assert result.rejected == ()
    first = result.rows[result.rows["n"] == 4096]
    np.testing.assert_allclose(first["routed_tokens"], rows)
    np.testing.assert_allclose(first["distinct_experts"], [128, 256])
    assert list(result.rows["k"]) == [7168, 7168, 2048, 2048]


def test_decode_rows_dominated_by_their_launch_are_set_aside(tmp_path: Path) -> None:
    """35 us at 1,024 tokens but 27 us at 16,384; another KV dtype of the same batch is another row of cases."""
    rows = {
        "dtype": "bf16", "kv_dtype": ["bf16"] * 3 + ["fp8"], "batch_size": 1,
        "kv_len": [1024, 16384, 65536, 131072], "latency_us": [35.0, 27.0, 80.0, 60.0], "mfu": 0.01,
    }  # fmt: skip
    path = csv(tmp_path / "mha" / "decode" / "h20" / "32-4-128.csv", rows)
    result = infersim.read_file(path)
    assert [(item.rows, item.first_row) for item in result.rejected] == [(1, 0)]
    assert "dominated by its launch" in result.rejected[0].reason
    assert set(zip(result.rows["heads"], result.rows["kv_heads"], result.rows["head_dim"], strict=True)) == {
        (32, 4, 128)
    }


def test_a_file_without_header_reads_the_same(tmp_path: Path) -> None:
    rows = {
        "dtype": "bf16", "kv_dtype": "bf16", "batch_size": [1, 16], "kv_len": 4096, "latency_us": [40.0, 90.0],
        "mfu": 0.01,
    }  # fmt: skip
    bare = infersim.read_file(csv(tmp_path / "mha" / "decode" / "h20" / "64-2-128.csv", rows, header=False)).rows
    headed = infersim.read_file(csv(tmp_path / "mha" / "decode" / "h20" / "32-2-128.csv", rows)).rows
    assert list(bare["latency_s"]) == list(headed["latency_s"]) == pytest.approx([40e-6, 90e-6])


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "gemm/h20/data.csv",
            {"m": [1], "k": 2, "n": 3, "latency_ms": 1.0},
            r"data\.csv: column latency_us, mfu is missing",
        ),
        ("gemm/h300/data.csv", {"m": [1]}, r"data\.csv: the folder must be one of h20, h800, got 'h300'"),
        ("gemv/h20/data.csv", {"m": [1]}, r"data\.csv: no folder of it is one of grouped_gemm, gemm"),
        ("mha/decode/h20/32-8.csv", {"batch_size": [1]}, r"32-8\.csv: its name must be three numbers"),
        ("gdn/decode/h20/4-16-128-32-128.csv", {"batchsize": [1], "conv": 8}, "its columns carry no unit"),
        (
            "mha/prefill/h20/32-8-128.csv",
            {"dtype": ["fp7"], "seq_len": 1024, "latency_us": 100.0},
            r"32-8-128\.csv: row 0: dtype must be one of bf16, fp16, fp8, got 'fp7'",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, name: str, rows: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infersim.read_file(csv(tmp_path / name, rows))


def test_files_with_the_same_bytes_are_not_used(tmp_path: Path) -> None:
    rows = _gemm([10.6, 10.7, 400.0])
    twins = [csv(tmp_path / "gemm" / gpu / "data.csv", rows) for gpu in ("h20", "h800")]
    other = csv(tmp_path / "more" / "gemm" / "h20" / "data.csv", _gemm([10.0, 10.7, 400.0]))
    result = infersim.read_files([*twins, other])
    assert len(result.rows) == 3
    assert [(item.rows, "byte-identical" in item.reason) for item in result.rejected] == [(3, True), (3, True)]


def test_text_where_a_number_belongs_is_set_aside(tmp_path: Path) -> None:
    rows = {**_gemm([10.6, 10.7, 400.0]), "latency_us": ["10.6", "fast", "400.0"]}
    result = infersim.read_file(csv(tmp_path / "gemm" / "h20" / "data.csv", rows))
    assert [(item.rows, item.first_row, item.reason) for item in result.rejected] == [
        (1, 1, "latency_s is not a number")
    ]


def test_published_files_import(shared_data: Path) -> None:
    """Ten of the files with all their rows used or counted; those without units are refused, two pairs identical."""
    root = shared_data / "infersim" / "bench_data"
    timed = [*sorted(root.glob("*gemm/**/*.csv")), *sorted(root.glob("mha/decode/h800/*-2-128.csv"))]
    result = infersim.read_files(timed)
    assert len(timed) == 11
    assert (
        len(result.rows) + sum(item.rows for item in result.rejected) == 402 + 110 + 2 * (266 + 47 + 160 + 24) + 5 * 41
    )
    assert sum(item.rows for item in result.rejected) == 8
    identical = infersim.read_files(sorted(root.glob("gdn/**/*.csv")))
    assert len(identical.rows) == 0
    assert len(identical.rejected) == 4
