"""Chrome traces of torch.profiler: kernels to their operators, groups to medians."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sim.calibration.importers import torch_profiler

DEVICE = [{"id": 0, "name": "NVIDIA H200"}]


def product(identity: int, m: int, *, bias: bool = False) -> dict[str, Any]:
    """An operator event as the profiler writes it with `record_shapes=True`."""
    dims = [[m, 4096], [4096, 1024]]
    args = {"External id": identity, "Input Dims": dims, "Input type": ["c10::BFloat16"] * 2}
    if bias:
        args |= {"Input Dims": [[1024], *dims], "Input type": ["c10::BFloat16"] * 3}
    return {"ph": "X", "cat": "cpu_op", "name": "aten::addmm" if bias else "aten::mm", "ts": 1, "dur": 9, "args": args}


def kernel(name: str, duration_us: float, identity: int | None = None, **args: Any) -> dict[str, Any]:
    """A kernel event."""
    args = {"grid": [64, 1, 1], "block": [128, 1, 1], **({"External id": identity} if identity else {}), **args}
    return {"ph": "X", "cat": "kernel", "name": name, "ts": 2, "dur": duration_us, "args": args}


def written(folder: Path, events: list[dict[str, Any]], name: str = "t.json", **changes: Any) -> Path:
    """The trace as a file, compressed where its name ends in .gz."""
    text = json.dumps({"schemaVersion": 1, "deviceProperties": DEVICE, "traceEvents": events, **changes}).encode()
    path = folder / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_kernels_of_a_product_become_one_gemm(tmp_path: Path, name: str) -> None:
    """Three calls of one shape, the last split over two kernels; another shape; one kernel of another operator."""
    events = [
        product(1, 16), kernel("gemm", 10.0, 1), product(2, 16), kernel("gemm", 12.0, 2),
        product(3, 64, bias=True), kernel("gemm", 20.0, 3), kernel("splitk_reduce", 2.0, 3), kernel("silu", 3.0, 9),
    ]  # fmt: skip
    result = torch_profiler.read_file(written(tmp_path, events, name), engine="vllm")
    assert result.rejected == ()
    rows = result.rows.sort_values("latency_s").reset_index(drop=True)
    assert list(rows["op"]) == ["kernel", "gemm", "gemm"]
    assert rows["latency_s"].tolist() == pytest.approx([3e-6, 11e-6, 22e-6])
    assert list(rows["samples"]) == [1, 2, 1]
    assert rows["spread_s"].tolist() == pytest.approx([0.0, 1e-6, 0.0])
    assert rows.loc[2, ["m", "n", "k"]].tolist() == [64, 1024, 4096]
    assert rows.loc[2, "kernels"] == "gemm + splitk_reduce"
    assert set(rows["engine"]) == {"vllm"}
    assert set(rows["gpu"]) == {"h200_sxm"}


def test_launch_grids_tell_shapes_apart(tmp_path: Path) -> None:
    events = [kernel("norm", 4.0), kernel("norm", 6.0), kernel("norm", 40.0, grid=[640, 1, 1])]
    rows = torch_profiler.read_file(written(tmp_path, events)).rows
    assert rows["latency_s"].tolist() == pytest.approx([5e-6, 40e-6])
    assert list(rows["samples"]) == [2, 1]


def test_collectives_count_bytes(tmp_path: Path) -> None:
    args = {"Collective name": "_allgather_base", "In msg nelems": 512, "Out msg nelems": 4096, "Group size": 8}
    events = [kernel("ncclDevKernel_AllGather", 20.0, **args, dtype="BFloat16")]
    row = torch_profiler.read_file(written(tmp_path, events)).rows.iloc[0]
    assert (row["op"], row["gpus"], row["message_bytes"]) == ("all_gather", 8, 8192)


def test_kernels_without_a_duration_are_counted_not_averaged(tmp_path: Path) -> None:
    events = [kernel("norm", 4.0), kernel("norm", 0.0), {**kernel("norm", 1.0), "dur": "soon"}]
    result = torch_profiler.read_file(written(tmp_path, events))
    assert result.rows["latency_s"].tolist() == pytest.approx([4e-6])
    assert [(item.rows, item.first_row) for item in result.rejected] == [(2, 1)]


@pytest.mark.parametrize(
    ("events", "changes", "message"),
    [
        ([product(1, 16)], {}, r"t\.json: no GPU kernel among 1 events; profile with ProfilerActivity\.CUDA"),
        ([kernel("k", 1.0)], {"traceEvents": {}}, r"t\.json: not a trace of torch\.profiler"),
        (
            [kernel("k", 1.0)],
            {"deviceProperties": []},
            r"t\.json: deviceProperties must name one kind of GPU, got none",
        ),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path, events: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        torch_profiler.read_file(written(tmp_path, events, **changes))
    broken = tmp_path / "broken.json.gz"
    broken.write_bytes(b"{")
    with pytest.raises(ValueError, match=r"broken\.json\.gz: not JSON"):
        torch_profiler.read_file(broken)


def test_unknown_gpus_are_set_aside(tmp_path: Path) -> None:
    path = written(tmp_path, [kernel("k", 1.0)], deviceProperties=[{"name": "NVIDIA H300"}])
    assert "gpu is 'NVIDIA H300'" in torch_profiler.read_file(path).rejected[0].reason
