"""CSV files, plain or gzip, as columns of numbers; and traces assembled from parts of one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.calibration.checks import Trace, concat, frame, sift
from sim.calibration.faults import Fault

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, Any]
"""Columns of the kernel trace: an array of the part's length, or one value for all its rows."""

Part = tuple["pd.DataFrame", Columns]
"""Rows of the publisher's table, whose index is their number in the file, and what they become."""

MICROSECOND = 1e-6
MILLISECOND = 1e-3


def read_csv(path: Path, needed: Sequence[str], names: Sequence[str] = ()) -> pd.DataFrame:
    """The file at `path`; its columns `needed` are numbers, NaN where the file holds none, the others as they are.

    Args:
        path: CSV, compressed where it ends in .gz.
        needed: columns that must be there.
        names: the columns of a file without header line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not CSV, or a column is missing; the message names the file.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        table = pd.read_csv(path, header=None if names else 0, names=list(names) or None, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a CSV file: {str(error).splitlines()[0]}") from error
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"{path}: column {', '.join(missing)} is missing; found: {', '.join(map(str, table))}")
    for name in needed:
        if not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = pd.to_numeric(table[name], errors="coerce")
    return table


def counts(column: pd.Series[Any]) -> pd.Series[Any]:
    """`column` as integers; empty where it is not one."""
    whole = column.where(np.isclose(column % 1, 0))
    return whole.astype("Int64")


def assembled(source: str, common: Mapping[str, Any], parts: Sequence[Part], suspects: Sequence[Fault] = ()) -> Trace:
    """The usable rows of all `parts`, with what they have in `common`.

    Args:
        source: name of the file, for the rows and for the counts of what was set aside.
        common: columns of all parts; a part's own win.
        parts: see `Part`; an empty one is left out.
        suspects: faults over the rows of all parts that are not empty, in their order.
    """
    frames = []
    for table, columns in parts:
        if len(table):
            values = {"source": source, "source_row": table.index.to_numpy(), **common, **columns}
            frames.append(Trace(frame(len(table), values)))
    return sift(concat(frames).rows, source, suspects=suspects)


def short_source(path: Path, parts: int) -> str:
    """The last `parts` of a path, which name a file of a collection wherever it lies."""
    return "/".join(path.parts[-parts:])
