"""Small tables of our own in the publishers' formats; figures are made up, only the columns are theirs."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

HOPPER = "NVIDIA H200"


def aiconfigurator(folder: Path, table: str, rows: Mapping[str, Sequence[Any] | Any]) -> Path:
    """A table of AIConfigurator's database at its place in the tree."""
    path = folder / "h200_sxm" / "family" / "vllm" / "0.24.0" / f"{table}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    common = {"framework": "VLLM", "version": "0.24.0", "device": HOPPER, "op_name": "x", "kernel_source": "k"}
    pd.DataFrame({**common, **rows}, index=range(_length(rows))).to_parquet(path)
    return path


def csv(path: Path, rows: Mapping[str, Sequence[Any] | Any], *, header: bool = True) -> Path:
    """A CSV file, compressed where `path` ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = pd.DataFrame(dict(rows), index=range(_length(rows))).to_csv(index=False, header=header)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def gemm_rows(**changes: Sequence[Any] | Any) -> dict[str, Any]:
    """Four plausible GEMMs of `gemm_perf`, milliseconds."""
    shape = {"m": [1, 16, 64, 256], "n": 4096, "k": 4096}
    return {"gemm_dtype": "bfloat16", **shape, "latency": [0.012, 0.013, 0.014, 0.02], **changes}


def _length(rows: Mapping[str, Sequence[Any] | Any]) -> int:
    return max(len(value) for value in rows.values() if isinstance(value, list))
