"""A fitted form: which rows of a kernel trace a family is judged on, and how its constants price them.

The prices are those of `sim.cost`, so what is fitted is what a run pays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sim.calibration.fit import Constant, Floats
from sim.cost.efficiency import Efficiency
from sim.cost.work import Peaks, Work
from sim.hardware import Gpu

if TYPE_CHECKING:
    import pandas as pd

WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0}
PEAK_OF = {"bf16": "bf16", "fp8": "fp8", "fp8_block": "fp8"}

ROOFLINE = (Constant("memory_efficiency", 0.85, 0.2, 1.0), Constant("compute_efficiency", 0.7, 0.02, 1.0))


@dataclass(frozen=True, slots=True)
class Judged:
    """The rows of one family, with what their price needs.

    Attributes:
        rows: of the kernel trace.
        work: FLOPs and bytes per row.
        case: the op as `sim.cost` sees it.
        in_l2: rows whose operands a benchmark without flush keeps in the L2.
        peaks: of the GPU, at the data type.
    """

    rows: pd.DataFrame
    case: Any
    work: Work
    in_l2: NDArray[np.bool_]
    peaks: Peaks

    @property
    def measured_s(self) -> Floats:
        """Latencies."""
        return self.rows["latency_s"].to_numpy(np.float64)

    @property
    def faster_than_memory(self) -> NDArray[np.bool_]:
        """Rows that beat the hard bound: their operands came from the L2."""
        return np.asarray(self.work.bound_s(self.peaks)) > self.measured_s


class Form(ABC):
    """One op family: its rows, its groups, its constants, its price.

    Attributes:
        family, op: field of the calibration, and op of the trace.
        group: columns that make a shape; whole shapes are held out.
        size: columns that make a size, the one a table interpolates along first.
        schema: the constants' class.
        constants: those to fit.
        fixed: constants that are not fitted.
        keeps_in_l2: whether operands that a benchmark left in the L2 have a price of their own.
        reads: further columns that a table needs.
    """

    family: ClassVar[str]
    op: ClassVar[str]
    group: ClassVar[tuple[str, ...]]
    size: ClassVar[tuple[str, ...]]
    schema: ClassVar[type[Efficiency]]
    constants: tuple[Constant, ...]
    fixed: Mapping[str, float] = {}
    keeps_in_l2: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ()

    def judged(self, trace: pd.DataFrame, gpu: Gpu, dtype: str = "bf16", *, eager: bool = False) -> Judged | None:
        """The rows of `trace` that the family is judged on, of `gpu` and `dtype` alone; None where there are none.

        `eager`: rows timed outside a CUDA graph count too; small ones may hold launch time.
        """
        mask = (trace["op"] == self.op) & (trace["gpu"] == gpu.name) & (trace["dtype"] == dtype)
        mask &= (trace["status"] == "ok") & (eager | trace["graph"].fillna(value=True))
        rows = trace[mask.to_numpy(bool)]
        rows = rows[self.selected(rows)].reset_index(drop=True)
        if rows.empty:
            return None
        case, work = self.case(rows, dtype)
        peaks = Peaks(gpu.flops_per_s(PEAK_OF[dtype]), gpu.memory_bandwidth_bytes_per_s, gpu.sm_count)
        warm = ~rows["l2_flushed"].fillna(value=False).to_numpy(bool) & self.keeps_in_l2
        return Judged(rows, case, work, warm & (np.asarray(work.bytes) < gpu.l2_bytes), peaks)

    def headline(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Rows that the stated error is of; all of them are fitted."""
        return np.ones(len(rows), bool)

    def shape_columns(self, rows: pd.DataFrame) -> list[Floats]:
        """The shape of every row as a table looks it up, a column per figure."""
        return [rows[name].to_numpy(np.float64) for name in self.group]

    def sizes(self, rows: pd.DataFrame) -> tuple[Floats, Floats]:
        """Outer and inner size of every row, as a table interpolates them."""
        inner, *outer = self.size
        levels = rows[outer[0]].to_numpy(np.float64) if outer else np.zeros(len(rows))
        return levels, rows[inner].to_numpy(np.float64)

    def keys(self, rows: pd.DataFrame) -> list[tuple[Any, ...]]:
        """The shape group of every row."""
        return [tuple(row) for row in rows[list(self.group)].itertuples(index=False)]

    def table_price(self, efficiency: Any, judged: Judged) -> Floats:
        """Seconds per row that a table's factor multiplies."""
        return self.price(efficiency, judged)

    @abstractmethod
    def selected(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Rows that count."""

    @abstractmethod
    def case(self, rows: pd.DataFrame, dtype: str) -> tuple[Any, Work]:
        """The rows as `sim.cost` sees them, and their work."""

    @abstractmethod
    def price(self, efficiency: Any, judged: Judged) -> Floats:
        """Seconds per row."""


def shapes_of(rows: pd.DataFrame, names: Sequence[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The rows by their whole-numbered columns `names`."""
    found: Any = rows.groupby(list(names), sort=False, dropna=False)
    return [(tuple(int(value) for value in key), group) for key, group in found]


def joined_cases(rows: pd.DataFrame, parts: list[tuple[pd.DataFrame, Any]]) -> Any:
    """One case of arrays over all `rows` from one per group; scalars of a group are repeated."""
    kind: Any = type(parts[0][1])
    values: dict[str, Any] = {}
    for field in fields(kind):
        values[field.name] = _column(rows, [(group, getattr(case, field.name)) for group, case in parts])
    return kind(**values)


def _column(rows: pd.DataFrame, parts: list[tuple[pd.DataFrame, Any]]) -> Any:
    if isinstance(parts[0][1], Work):
        flops = _column(rows, [(group, work.flops) for group, work in parts])
        return Work(flops, _column(rows, [(group, work.bytes) for group, work in parts]))
    column = np.zeros(len(rows))
    for group, value in parts:
        column[group.index.to_numpy()] = value
    return column
