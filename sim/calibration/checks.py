"""Kernel traces in memory: what is usable, and counts of what was set aside. Nothing is averaged or repaired."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.faults import DUPLICATE_TOLERANCE, Fault, disagreeing, faults
from sim.calibration.trace import (
    BOOLEAN_COLUMNS,
    COLUMNS,
    FLOAT_COLUMNS,
    INTEGER_COLUMNS,
    read_table,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rows set aside for one reason; `first_row` is the number of the first, counted from 0 in its source."""

    source: str
    reason: str
    rows: int
    first_row: int

    def __str__(self) -> str:
        return f"{self.source}: row {self.first_row}: {self.reason} ({self.rows} rows set aside)"


@dataclass(frozen=True, slots=True)
class Trace:
    """Usable rows (columns `COLUMNS`, pandas nullable types) and what was set aside."""

    rows: pd.DataFrame
    rejected: tuple[Rejected, ...] = ()


def frame(length: int, values: Mapping[str, Any]) -> pd.DataFrame:
    """`length` rows of a kernel trace from columns or constants; a column not given is empty, `status` is ok.

    Raises:
        ValueError: a column that the format does not have.
    """
    import pandas as pd

    unknown = sorted(set(values) - set(COLUMNS))
    if unknown:
        raise ValueError(f"a kernel trace has no column {', '.join(unknown)}")
    given = {"status": "ok", "source_row": np.arange(length), **values}
    columns = {name: _column(name, given.get(name), length) for name in COLUMNS}
    return pd.DataFrame(columns, copy=False)


def concat(traces: Sequence[Trace]) -> Trace:
    """All rows of `traces`, in their order."""
    import pandas as pd

    if not traces:
        return Trace(frame(0, {}))
    rows = pd.concat([trace.rows for trace in traces], ignore_index=True)
    return Trace(rows, tuple(item for trace in traces for item in trace.rejected))


def read(path: Path) -> pd.DataFrame:
    """The kernel trace `path`, every row of it usable.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a kernel trace, or a row that cannot be used; the message names file, row and reason.
    """
    trace = load(path)
    if trace.rejected:
        more = len(trace.rejected) - 1
        raise ValueError(f"{trace.rejected[0]}{f'; and {more} more reasons' if more else ''}; correct or drop them")
    return trace.rows


def load(path: Path) -> Trace:
    """Like `read`, but rows that cannot be used are set aside and counted."""
    import pandas as pd

    types = {"int64": pd.Int64Dtype(), "bool": pd.BooleanDtype()}
    rows = read_table(path).to_pandas(types_mapper=lambda kind: types.get(str(kind)))
    return sift(rows, str(path), np.arange(len(rows)))


def sift(
    rows: pd.DataFrame, where: str, numbers: NDArray[np.int64] | None = None, suspects: Sequence[Fault] = ()
) -> Trace:
    """Split `rows` into usable ones and counts of the others; the first fault of a row is the one that counts it.

    Out-of-memory and failed cases stay, they carry no latency; so do repeated timings that agree, each in its row.

    Args:
        rows: columns `COLUMNS`.
        where: source that the counts name.
        numbers: row numbers to name; default `source_row`.
        suspects: faults that the importer knows of, beside those of `faults`.
    """
    numbers = rows["source_row"].to_numpy(np.int64, na_value=-1) if numbers is None else numbers
    sound = np.ones(len(rows), bool)
    rejected: list[Rejected] = []

    def set_aside(bad: NDArray[np.bool_], reason: str) -> None:
        bad = bad & sound
        if bad.any():
            rejected.append(Rejected(where, reason, int(bad.sum()), int(numbers[bad.argmax()])))
            sound[bad] = False

    for bad, reason in (*suspects, *faults(rows)):
        set_aside(bad, reason)
    set_aside(disagreeing(rows, sound), f"timings of the same case differ by more than {DUPLICATE_TOLERANCE:.0%}")
    return Trace(rows if sound.all() else rows[sound].reset_index(drop=True), tuple(rejected))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, for the provenance of what was fitted from it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _column(name: str, value: Any, length: int) -> Any:
    import pandas as pd

    if name in INTEGER_COLUMNS:
        kind: Any = "Int64"
    elif name in BOOLEAN_COLUMNS:
        kind = "boolean"
    elif name in FLOAT_COLUMNS:
        kind = "float64"
    else:
        kind = "str"
    if value is None or np.isscalar(value):
        return pd.Series([value], dtype=kind).repeat(length).reset_index(drop=True)
    return pd.Series(value, dtype=kind).reset_index(drop=True)
