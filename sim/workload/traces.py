"""Replay of a recorded request stream: which part of the file, how fast, and what to do with bad rows."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.request import Requests
from sim.workload.base import Workload, require_at_least, require_positive
from sim.workload.reading import Record, Records, RowError


@dataclass(kw_only=True, slots=True)
class Trace(Workload):
    """Settings shared by everything that is read from a file.

    Time counts from the first row of the file, or from `window_start_s` where that is set. The window is cut first (in
    the file's own time), then the head, then time is rescaled; a reader stops at the end of what was asked for, so rows
    behind it are not checked.

    Attributes:
        path: the file, plain or gzip; a relative path starts at the working directory.
        rate_scale: arrivals come this many times faster, > 0.
        rate_per_s: rescale time to this mean rate, (n - 1) / (last - first arrival), > 0; excludes rate_scale.
        head: keep the first so many requests, >= 1.
        window_start_s, window_end_s: keep arrivals in [start, end).
        skip_bad_rows: drop and count rows that do not fit the format, instead of refusing the file. A damaged file
            (gzip, text encoding, quoting, columns) is refused all the same.
    """

    path: str
    rate_scale: float = 1.0
    rate_per_s: float | None = None
    head: int | None = None
    window_start_s: float = 0.0
    window_end_s: float | None = None
    skip_bad_rows: bool = False

    def __post_init__(self) -> None:
        require_positive("workload.rate_scale", self.rate_scale)
        require_positive("workload.rate_per_s", self.rate_per_s)
        if self.rate_per_s is not None and self.rate_scale != 1:
            raise ValueError(
                f"workload.rate_scale has no effect beside rate_per_s={self.rate_per_s}, got {self.rate_scale}; set one"
            )
        require_at_least("workload.head", self.head, 1)
        require_at_least("workload.window_start_s", self.window_start_s, 0)
        if self.window_end_s is not None and not self.window_end_s > self.window_start_s:
            raise ValueError(f"workload.window_end_s must be > {self.window_start_s}, got {self.window_end_s}")

    def count_or_refuse(self, line: int, bad: RowError, dropped: Counter[str]) -> None:
        """A bad row is counted under its reason with skip_bad_rows, else it is a ValueError with file and line."""
        if not self.skip_bad_rows:
            raise ValueError(f"{self.path}:{line}: {bad}; correct it or set workload.skip_bad_rows=true") from bad
        dropped[bad.reason] += 1

    def paced(self, arrival_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Arrivals in simulation time, from arrivals in the file's time (both since the window's start)."""
        if self.rate_per_s is None:
            return arrival_s / self.rate_scale
        span_s = arrival_s[-1] - arrival_s[0]
        if span_s <= 0:
            raise ValueError(f"workload.rate_per_s needs arrivals at two instants or more; {self.path} has one")
        stretch: float = (len(arrival_s) - 1) / span_s / self.rate_per_s
        return arrival_s * stretch

    def require_some(self, n: int, dropped: Counter[str]) -> None:
        """Refuses a selection of `n` = 0 requests."""
        if n == 0:
            raise ValueError(
                f"{self.path}: no request left in workload.window_start_s={self.window_start_s} to "
                f"window_end_s={self.window_end_s}; dropped rows: {dict(dropped) or 'none'}"
            )


class Row(NamedTuple):
    """One request as a format states it: `time` in its own unit and from its own origin (integers stay exact)."""

    time: float
    prompt_tokens: int
    output_tokens: int
    group: str = "all"
    block_ids: NDArray[np.int64] | None = None


@dataclass(kw_only=True, slots=True)
class RowTrace(Trace):
    """A trace with one request per row, in order of time; equal times keep the order of the file.

    A format states its `records`, how to `parse` one, and
        TICKS_PER_S: how many units of `Row.time` make a second,
        ZERO_TOKENS: why a row of 0 prompt or output tokens is dropped and counted; "" where it is a bad row,
        BLOCK_TOKENS: prompt tokens per id in `Row.block_ids`, 0 where the format has none.
    """

    TICKS_PER_S: ClassVar[int] = 1
    ZERO_TOKENS: ClassVar[str] = "failed request (0 tokens)"
    BLOCK_TOKENS: ClassVar[int] = 0

    @abstractmethod
    def records(self) -> Records:
        """(line, record) for every row of the file."""

    @abstractmethod
    def parse(self, record: Record) -> Row:
        """The request in `record`; raises RowError where there is none."""

    def requests(self, seed: int) -> Requests:
        dropped: Counter[str] = Counter()
        lines: list[int] = []
        elapsed_s: list[float] = []
        rows: list[Row] = []
        for line, at_s, row in self._rows(dropped):
            lines.append(line)
            elapsed_s.append(at_s)
            rows.append(row)
            if len(rows) == self.head:
                break
        self.require_some(len(rows), dropped)
        _, prompt_tokens, output_tokens, group, block_ids = zip(*rows, strict=True)
        groups = {name: code for code, name in enumerate(dict.fromkeys(group))}
        return Requests(
            arrival_s=self.paced(np.array(elapsed_s) - self.window_start_s),
            prompt_tokens=np.array(prompt_tokens, np.int64),
            output_tokens=np.array(output_tokens, np.int64),
            group=np.array([groups[name] for name in group], np.int32),
            groups=tuple(groups),
            block_ids=block_ids if self.BLOCK_TOKENS else None,
            block_tokens=self.BLOCK_TOKENS,
            dropped=tuple(dropped.items()),
            source=self.path,
            source_line=np.array(lines, np.int64),
        )

    def _rows(self, dropped: Counter[str]) -> Iterator[tuple[int, float, Row]]:
        """(line, seconds since the first row, row) of the good rows in the window; counts the others in `dropped`."""
        first: float | None = None
        last = 0.0
        end_s = np.inf if self.window_end_s is None else self.window_end_s
        for line, record in self.records():
            try:
                row = self._good_row(record, last)
            except RowError as bad:
                self.count_or_refuse(line, bad, dropped)
                continue
            last = row.time
            first = last if first is None else first
            at_s = (last - first) / self.TICKS_PER_S
            if at_s >= end_s:
                return
            if at_s < self.window_start_s:
                continue
            if row.prompt_tokens == 0 or row.output_tokens == 0:
                dropped[self.ZERO_TOKENS] += 1
                continue
            yield line, at_s, row

    def _good_row(self, record: Record | RowError, last: float) -> Row:
        if isinstance(record, RowError):
            raise record
        row = self.parse(record)
        if row.time < last:
            raise RowError("timestamp must not decrease", f"{last - row.time} ticks of 1/{self.TICKS_PER_S} s")
        if not self.ZERO_TOKENS and (row.prompt_tokens == 0 or row.output_tokens == 0):
            raise RowError("prompt and output tokens must be >= 1", 0)
        return row
