"""Vidur's profiling CSV: medians in milliseconds, shards of one GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.calibration.importers import vidur
from tests.calibration.tables import csv

KEYS = {
    "n_head": 64, "n_kv_head": 8, "n_embd": 8192, "n_expanded_embd": 28672, "vocab_size": 32768, "use_gated_mlp": True,
    "num_tokens": [1, 4096], "num_tensor_parallel_workers": 4,
}  # fmt: skip


def stats(op: str, median_ms: list[float]) -> dict[str, object]:
    """The five columns of one op."""
    return {f"time_stats.{op}.{figure}": median_ms for figure in ("min", "max", "mean", "median")} | {
        f"time_stats.{op}.std": 0.001
    }


def test_modules_become_the_shards_of_one_gpu(tmp_path: Path) -> None:
    table = {
        **stats("attn_pre_proj", [0.03, 0.7]), **stats("mlp_up_proj", [0.18, 4.0]),
        **stats("mlp_down_proj", [0.09, 2.0]), **stats("attn_rope", [0.005, 0.1]), **stats("add", [0.004, 0.1]), **KEYS,
    }  # fmt: skip
    result = vidur.read_file(csv(tmp_path / "compute" / "a100" / "Llama-2-70b-hf" / "mlp.csv.gz", table))
    assert result.rejected == ()
    rows = result.rows[result.rows["source_row"] == 1].set_index("layer")
    assert rows.loc["attn_pre_proj", ["m", "n", "k"]].tolist() == [4096, (16 + 2 * 2) * 128, 8192]
    assert rows.loc["mlp_up_proj", ["n", "k"]].tolist() == [2 * 7168, 8192]
    assert rows.loc["mlp_down_proj", ["n", "k"]].tolist() == [8192, 7168]
    assert rows.loc["mlp_up_proj", "latency_s"] == pytest.approx(4e-3)
    assert rows.loc["mlp_up_proj", "spread_s"] == pytest.approx(1.349e-6)
    assert rows.loc[["attn_rope", "add"], "op"].tolist() == ["rope", "layer"]
    assert set(rows["gpu"]) == {"a100_80gb_sxm"}
    assert set(rows["dtype"]) == {"fp16"}


def test_gemms_faster_than_memory_are_set_aside(tmp_path: Path) -> None:
    """42 MB fit the L2 of an A100, but the modules timed in between evict it."""
    table = {**stats("attn_pre_proj", [0.002, 0.7]), **KEYS}
    result = vidur.read_file(csv(tmp_path / "compute" / "a100" / "x" / "mlp.csv.gz", table))
    assert [(item.rows, item.first_row) for item in result.rejected] == [(1, 0)]
    assert "faster than the memory" in result.rejected[0].reason


def test_attention_separates_prefill_from_decode(tmp_path: Path) -> None:
    table = {
        "n_embd": 8192, "n_q_head": 64, "n_kv_head": 8, "num_tensor_parallel_workers": 2,
        "batch_size": [1, 16], "prefill_chunk_size": [512, 0], "kv_cache_size": [1024, 2048],
        **stats("attn_prefill", [0.3, 0.0]), **stats("attn_decode", [0.0, 0.1]),
        "attention_backend": "AttentionBackend.FLASH_ATTENTION",
    }  # fmt: skip
    result = vidur.read_file(csv(tmp_path / "compute" / "a100" / "x" / "attention_tp2.csv.gz", table))
    rows = result.rows.set_index("op")
    shape = ["batch", "width", "context_tokens", "heads", "kv_heads", "head_dim"]
    assert rows.loc["attention_prefill", shape].tolist() == [1, 512, 1024, 32, 4, 128]
    assert rows.loc["attention_decode", shape].tolist() == [16, 1, 2048, 32, 4, 128]
    assert rows["latency_s"].tolist() == pytest.approx([3e-4, 1e-4])
    assert set(rows["kernels"]) == {"flash_attention"}


def test_collectives_keep_nodes_apart_and_unknown_gpus_are_set_aside(tmp_path: Path) -> None:
    table = {"num_workers": [8, 16], "devices_per_node": 8, "size": 1 << 20, **stats("all_reduce", [0.064, 0.15])}
    result = vidur.read_file(csv(tmp_path / "network" / "a100_dgx" / "all_reduce.csv.gz", table))
    assert result.rows[["gpus", "gpus_per_node", "message_bytes"]].to_numpy().tolist() == [
        [8, 8, 1 << 20],
        [16, 8, 1 << 20],
    ]
    assert set(result.rows["engine"]) == {"nccl"}
    pairs = vidur.read_file(csv(tmp_path / "network" / "h100_pairwise_nvlink" / "all_reduce.csv.gz", table))
    assert len(pairs.rows) == 0
    assert "no file in hardware_specs/gpu" in pairs.rejected[0].reason


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("compute/a100/x/mlp.csv", r"mlp\.csv: column n_head, .* is missing"),
        (
            "compute/h300/x/mlp.csv",
            r"mlp\.csv: the folder above the model's must be one of a100, h100, a40, a30, got 'h300'",
        ),
        ("network/ring/all_reduce.csv", r"all_reduce\.csv: the folder must be one of a100_dgx"),
        ("compute/a100/x/cpu.csv", r"cpu\.csv: no importer for a table of that name; known: mlp"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vidur.read_file(csv(tmp_path / name, {"num_tokens": [1]}))
    empty = tmp_path / "compute" / "a100" / "x" / "mlp.csv"
    csv(empty, KEYS)
    with pytest.raises(ValueError, match=r"mlp\.csv: no column time_stats"):
        vidur.read_file(empty)


def test_published_files_import(shared_data: Path) -> None:
    """Modules of A100 and H100, collectives, and the pair that holds one file twice."""
    root = shared_data / "vidur"
    modules = vidur.read_files(sorted((root / "compute").rglob("Meta-Llama-3-8B/mlp.csv.gz")))
    assert len(modules.rows) == 10 * 1824
    assert modules.rejected == ()
    network = vidur.read_files(sorted((root / "network").rglob("*.csv.gz")))
    assert {op: int(count) for op, count in network.rows["op"].value_counts().items()} == {
        "all_reduce": 6958 + 2982, "send_recv": 3 * 1988,
    }  # fmt: skip
    assert sum("byte-identical" in item.reason for item in network.rejected) == 2
    fork = vidur.read_file(root / "fork_a30" / "Qwen-2-7B" / "mlp.csv.gz")
    assert {item.rows for item in fork.rejected} == {76, 94}
