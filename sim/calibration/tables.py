"""The rows of a table file: measured over fitted time of every measured case."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.fit_family import FamilyFit
from sim.calibration.form import Form, Judged
from sim.cost.table import COLUMNS, KEYS, KernelTable, table_of
from sim.files import write_whole

Columns = dict[str, NDArray[Any]]


def table_columns(form: Form, judged: Judged, efficiency: Any, keep: NDArray[np.bool_], dtype: str) -> Columns:
    """`COLUMNS` of the rows in `keep`, their ratio that to the price under `efficiency`."""
    rows = judged.rows[keep]
    columns: Columns = {name: np.full(len(rows), np.nan) for name in (*KEYS, "distinct")}
    columns |= dict(zip(KEYS, form.shape_columns(rows), strict=False))
    columns["outer"], columns["inner"] = form.sizes(rows)
    if "distinct_experts" in form.reads:
        columns["distinct"] = rows["distinct_experts"].to_numpy(np.float64)
    columns["ratio"] = (judged.measured_s / form.table_price(efficiency, judged))[keep]
    columns |= {"family": np.full(len(rows), form.family), "dtype": np.full(len(rows), dtype)}
    return columns


def stacked(parts: Iterable[Columns]) -> Columns:
    """All of them, one after the other."""
    listed = list(parts)
    return {name: np.concatenate([part[name] for part in listed]) for name in COLUMNS}


def in_table(table: KernelTable, form: Form, judged: Judged, efficiency: Any, dtype: str) -> NDArray[np.float64]:
    """Seconds per row of `judged` by `table` over `efficiency`."""
    seconds = form.table_price(efficiency, judged)
    predicted = np.empty(len(seconds))
    outer, inner = form.sizes(judged.rows)
    if "distinct_experts" in form.reads:
        outer = judged.rows["distinct_experts"].to_numpy(np.float64)
    shapes, owner = np.unique(np.stack(form.shape_columns(judged.rows), axis=1), axis=0, return_inverse=True)
    for number, shape in enumerate(shapes.tolist()):
        places = np.flatnonzero(owner == number)
        factor = table.factor(form.family, dtype, tuple(shape), outer[places], inner[places])
        predicted[places] = seconds[places] * factor
    return predicted


def table_without(form: Form, judged: Judged, efficiency: Any, keep: NDArray[np.bool_], dtype: str) -> KernelTable:
    """The table of the rows in `keep` alone."""
    return table_of(table_columns(form, judged, efficiency, keep, dtype))


def write_kernel_table(fits: dict[str, FamilyFit], path: Path) -> None:
    """Write the table file of all fits (field of `Calibration` -> fit)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    for name, fit in fits.items():
        dtype = "fp8" if name.endswith("fp8") else "bf16"
        parts.append(table_columns(fit.form, fit.judged, fit.efficiency, fit.usable, dtype))
    table = pa.table(stacked(parts))
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
