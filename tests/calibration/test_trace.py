"""The file itself: what is written comes back, and what is not a kernel trace is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sim.calibration import checks, trace

GEMM = {
    "gpu": "h200_sxm", "engine": "torch", "dtype": "bf16", "op": "gemm", "m": 16, "n": 4096, "k": 4096,
    "latency_s": 13e-6, "spread_s": 1e-7, "samples": 20, "graph": True, "l2_flushed": True, "status": "ok",
}  # fmt: skip


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "own.parquet"
    failed = {**GEMM, "m": 32, "latency_s": None, "status": "out_of_memory"}
    trace.write_rows(path, [GEMM])
    trace.append_rows(path, [failed])
    rows = checks.read(path)
    assert [name for name in GEMM if rows[name].iloc[0] != GEMM[name]] == []
    assert list(rows["status"]) == ["ok", "out_of_memory"]
    assert rows["vocabulary"].isna().all()
    again = tmp_path / "again.parquet"
    trace.write_frame(again, rows)
    pd.testing.assert_frame_equal(checks.read(again), rows)
    assert checks.digest(again) != checks.digest(Path(__file__))
    assert not list(tmp_path.glob(".*"))  # no half-written file stays


def test_every_op_needs_columns_of_the_format() -> None:
    assert {column for needed in trace.OPS.values() for column in needed} <= set(trace.COLUMNS)
    assert set(trace.MEASUREMENT_COLUMNS) < set(trace.COLUMNS)
    assert len(trace.COLUMNS) == len(set(trace.COLUMNS))


def test_writing_needs_neither_pandas_nor_the_simulator(tmp_path: Path) -> None:
    """The profiling runner appends rows on machines that have pyarrow and numpy only."""
    program = """
import sys
from pathlib import Path
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pandas", "simpy", "hydra", "scipy", "plotly", "omegaconf"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from sim.calibration import trace
path = Path(sys.argv[1])
row = {"gpu": "h200_sxm", "op": "gemm", "dtype": "bf16", "m": 1, "n": 2, "k": 3, "latency_s": 1e-5, "status": "ok"}
trace.write_rows(path, [row]); trace.append_rows(path, [row])
assert trace.read_table(path).num_rows == 2
"""
    command = [sys.executable, "-c", program, str(tmp_path / "t.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**GEMM, "latency_ms": 3.0}, r"own\.parquet: row 1: a kernel trace has no column latency_ms; known: gpu"),
        ({**GEMM, "m": "many"}, r"own\.parquet: a value has another type than its column: .*many"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: dict[str, object], message: str) -> None:
    path = tmp_path / "own.parquet"
    with pytest.raises(ValueError, match=message):
        trace.write_rows(path, [GEMM, row])
    assert not path.exists()


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    text = tmp_path / "text.parquet"
    text.write_text("m,n,k\n1,2,3\n")
    with pytest.raises(ValueError, match=r"text\.parquet: not a Parquet file"):
        trace.read_table(text)
    other = tmp_path / "other.parquet"
    pd.DataFrame({"gpu": ["h200_sxm"]}).to_parquet(other)
    with pytest.raises(ValueError, match=r"other\.parquet: not a kernel trace, it lacks the columns batch"):
        trace.read_table(other)
    with pytest.raises(ValueError, match=r"lacks the columns"):
        trace.append_rows(other, [GEMM])
    with pytest.raises(FileNotFoundError, match="no kernel trace"):
        trace.read_table(tmp_path / "absent.parquet")
    typed = tmp_path / "typed.parquet"
    pd.DataFrame({name: ["x"] for name in trace.COLUMNS}).to_parquet(typed)
    with pytest.raises(ValueError, match=r"typed\.parquet: a column has another type"):
        trace.read_table(typed)


def test_the_guide_names_every_column_op_status_and_dtype(root: Path) -> None:
    words = re.findall(r"\w+", (root / "docs" / "kernel_traces.md").read_text())
    named = {*trace.COLUMNS, *trace.OPS, *trace.STATUSES, *trace.DTYPES}
    assert named - set(words) == set()
