"""Runs cases one after the other into a kernel trace: resumable, and no single case can stop it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import torch

from sim.calibration.trace import append_rows, read_table
from sim.profiling.cases import Case, Key, key_of
from sim.profiling.kernels import engine_of, kernel_names
from sim.profiling.place import Place
from sim.profiling.progress import Progress
from sim.profiling.workbench import Prepared, Workbench

Row = dict[str, object]

_BATCH_ROWS = 25
_BATCH_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run.

    Attributes:
        out: the kernel trace, which may hold rows already.
        max_minutes: stop after that many; the same command goes on later.
        kernels: name the kernels of every case.
        chrome_trace: folder for a Chrome trace per case.
        retry_failed: try again what failed for another reason than memory.
    """

    out: Path
    max_minutes: float = float("inf")
    kernels: bool = False
    chrome_trace: Path | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if not self.max_minutes > 0:
            raise ValueError(f"max_minutes must be > 0, got {self.max_minutes}")


@dataclass(slots=True)
class Outcome:
    """What a run did: cases by status ("ok", "out_of_memory", "failed", "known"), and whether it came to its end."""

    cases: Counter[str] = field(default_factory=Counter)
    finished: bool = True


def run(cases: Sequence[Case], bench: Workbench, options: Options, stream: TextIO) -> Outcome:
    """Time the cases that `options.out` does not hold yet, with a progress bar on `stream`.

    Ctrl-C, the time limit and an error that leaves the GPU unusable end it early; what was timed is in the file.
    """
    pending = _pending(cases, bench.place, options)
    outcome, rows = Outcome(Counter(known=len(cases) - len(pending))), _Rows(options.out)
    progress = Progress(len(pending), stream)
    deadline = time.monotonic() + 60 * options.max_minutes
    try:
        with torch.inference_mode():
            for done, (number, case) in enumerate(pending):
                if time.monotonic() > deadline:
                    outcome.finished = False
                    break
                progress.show(done, case.label())
                timed = _timed(case, bench, options, progress, number)
                rows.add(timed)
                outcome.cases[str(timed[0]["status"])] += 1
    except (KeyboardInterrupt, _GpuLostError):
        outcome.finished = False
    finally:
        rows.flush()
        bench.clear()
        progress.close()
    return outcome


class _GpuLostError(Exception):
    """After an error inside a kernel, every later call of the process fails."""


class _Rows:
    """Rows on their way into the file, in small batches, since every append rewrites it."""

    def __init__(self, out: Path) -> None:
        self._out, self._since = out, time.monotonic()
        self._waiting: list[Row] = []

    def add(self, rows: list[Row]) -> None:
        self._waiting += rows
        if len(self._waiting) >= _BATCH_ROWS or time.monotonic() - self._since > _BATCH_S:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            append_rows(self._out, self._waiting)
        self._waiting, self._since = [], time.monotonic()


def _pending(cases: Sequence[Case], place: Place, options: Options) -> list[tuple[int, Case]]:
    """The cases that are not in the file, each once, with their places among all."""
    rows = read_table(options.out).to_pylist() if options.out.exists() else []
    known = {key_of(row) for row in rows if row["status"] != "failed" or not options.retry_failed}
    pending: dict[Key, tuple[int, Case]] = {}
    for number, case in enumerate(cases):
        key = key_of(_columns(case, place))
        if key not in known:
            pending.setdefault(key, (number, case))
    return list(pending.values())


def _columns(case: Case, place: Place) -> Row:
    """The row of a case before it is timed."""
    engine, version = engine_of(case.kernel)
    about = {"gpu": place.gpu, "engine": engine, "engine_version": version, "dtype": place.dtype_name}
    return {**about, "op": case.op, "kernels": case.kernel, "source": "moesd-sim profile", **case.shape}


def _timed(case: Case, bench: Workbench, options: Options, progress: Progress, number: int) -> list[Row]:
    """The rows of a case, or the one that says why it has no timing."""
    row = _columns(case, bench.place)
    try:
        prepared = bench.prepare(case)
        measured = prepared.measure()
        row["kernels"] = _kernels(case, prepared, bench.place, options, number)
    except torch.OutOfMemoryError:
        return [{**row, "status": "out_of_memory"}]
    except Exception as error:  # compilers and engines raise what they like
        progress.note(f"failed: {case.label()}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        if "CUDA error" in str(error):
            raise _GpuLostError from error
        return [{**row, "status": "failed"}]
    return [
        {
            **row,
            **one.columns,
            "status": "ok",
            "latency_s": one.timing.latency_s,
            "spread_s": one.timing.spread_s,
            "samples": one.timing.samples,
            "graph": one.timing.graph,
            "l2_flushed": one.timing.l2_flushed,
        }
        for one in measured
    ]


def _kernels(case: Case, prepared: Prepared, place: Place, options: Options, number: int) -> str:
    """The case's kernel, and on request the names of what it launched."""
    if prepared.call is None or not (options.kernels or options.chrome_trace):
        return case.kernel
    trace = options.chrome_trace / f"{number:05}_{case.op}.json" if options.chrome_trace else None
    names = kernel_names(prepared.call, place, trace)
    return f"{case.kernel}: {'; '.join(names)}" if options.kernels else case.kernel
