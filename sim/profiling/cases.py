"""One case to time, as plain data: an op of the kernel trace, its shape columns, and the kernel that computes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.attention import Attention
from sim.calibration.trace import COLUMNS, MEASUREMENT_COLUMNS, OPS

Value = str | int | float | bool
Shape = Mapping[str, Value]
Key = tuple[tuple[str, Value], ...]

_TOLD_BY_THE_RUN = {*MEASUREMENT_COLUMNS, "kernels", "graph", "l2_flushed"}
_STEPS = ("target_step", "draft_step", "sd_round")


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed.

    Attributes:
        op: an op of the kernel trace.
        shape: its shape columns.
        kernel: who computes it, the first word of the column `kernels`.
        attention: widths that a kernel trace has no columns for (those of MLA).

    Raises:
        ValueError: an unknown op or column, or a shape column that the op cannot do without is missing.
    """

    op: str
    shape: Shape
    kernel: str
    attention: Attention | None = None

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise ValueError(f"op must be one of {', '.join(OPS)}, got {self.op!r}")
        unknown = sorted(set(self.shape) - set(COLUMNS))
        if unknown:
            raise ValueError(f"a kernel trace has no column {', '.join(unknown)}")
        missing = [name for name in OPS[self.op] if name not in self.shape]
        if missing:
            raise ValueError(f"{self.op} needs the columns {', '.join(missing)}")

    def integer(self, column: str) -> int:
        """An integer column."""
        value = self.shape[column]
        assert isinstance(value, int)
        return value

    def label(self) -> str:
        """The case in words, for the progress line."""
        shape = " ".join(f"{name}={value}" for name, value in self.shape.items())
        return f"{self.op} {shape} {self.kernel}"


def key_of(row: Mapping[str, object]) -> Key:
    """What tells one case from another: the filled columns of its row, those apart that only the run tells.

    Of a step that is also the number of distinct experts; of the kernels, the word before the colon counts.
    """
    told = _TOLD_BY_THE_RUN | ({"distinct_experts"} if row["op"] in _STEPS else set())
    items = [(name, value) for name, value in sorted(row.items()) if name not in told]
    kernel = str(row.get("kernels") or "").split(":")[0]
    return (*((name, value) for name, value in items if isinstance(value, Value)), ("kernel", kernel))
