"""Chrome traces that torch.profiler exports (`export_chrome_trace`), plain JSON or gzip; times are microseconds.

Kernels are grouped, one row with the median a group:
- matrix products, where the profiler ran with `record_shapes=True` and outside a CUDA graph: all kernels under one
  `aten::mm` or `aten::addmm` become a `gemm` of its shape;
- NCCL kernels that carry their message size become collectives;
- every other kernel becomes the op `kernel` under its name and launch grid, which tells its shapes apart.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim.calibration.checks import Rejected, Trace, concat, frame, sift
from sim.calibration.importers.words import gpu_name

Event = Mapping[str, Any]
Kernel = tuple[int, Event]
"""Place among the events, and the event."""

Key = tuple[tuple[str, Any], ...]

MICROSECOND = 1e-6
DTYPES = {
    "float": "fp32", "c10::Half": "fp16", "c10::BFloat16": "bf16", "c10::Float8_e4m3fn": "fp8",
    "Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "Float8_e4m3fn": "fp8", "signed char": "int8",
}  # fmt: skip
ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}
PRODUCTS = {"aten::mm": 0, "aten::addmm": 1}
"""Operator -> place of its first matrix among the inputs."""

COLLECTIVES = {
    "allreduce": "all_reduce", "all_reduce": "all_reduce", "allgather": "all_gather", "all_gather": "all_gather",
    "_allgather_base": "all_gather", "_reduce_scatter_base": "reduce_scatter", "reduce_scatter": "reduce_scatter",
    "all_to_all": "all_to_all", "all_to_allv": "all_to_all",
}  # fmt: skip


def read_files(paths: Iterable[Path], engine: str = "torch", dtype: str = "bf16") -> Trace:
    """All `paths`, one after the other; arguments and errors as in `read_file`."""
    return concat([read_file(path, engine, dtype) for path in paths])


def read_file(path: Path, engine: str = "torch", dtype: str = "bf16") -> Trace:
    """One trace.

    Args:
        path: JSON, compressed where it ends in .gz.
        engine: what was profiled; the file does not say.
        dtype: of the kernels whose trace does not tell it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a trace, without GPU kernels, or from several kinds of GPU; the message names the file.
    """
    trace = _load(path)
    events: list[Event] = trace["traceEvents"]
    devices = {str(item.get("name")) for item in trace.get("deviceProperties", [])}
    if len(devices) != 1:
        raise ValueError(
            f"{path}: deviceProperties must name one kind of GPU, got {', '.join(sorted(devices)) or 'none'}"
        )
    kernels = [(row, event) for row, event in enumerate(events) if event.get("cat") == "kernel"]
    if not kernels:
        raise ValueError(f"{path}: no GPU kernel among {len(events)} events; profile with ProfilerActivity.CUDA")
    timed = [(row, event) for row, event in kernels if _seconds(event) > 0]
    untimed = [row for row, event in kernels if not _seconds(event) > 0]
    rows = _rows(events, timed, dtype)
    columns = {name: [row.get(name) for row in rows] for name in {name for row in rows for name in row}}
    common = {"gpu": gpu_name(devices.pop()), "engine": engine, "source": path.name}
    trace_rows = sift(frame(len(rows), {**columns, **common}), path.name)
    if not untimed:
        return trace_rows
    rejected = Rejected(path.name, "dur of a kernel must be > 0", len(untimed), untimed[0])
    return Trace(trace_rows.rows, (rejected, *trace_rows.rejected))


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        trace = json.loads(data)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if isinstance(trace, dict) and isinstance(trace.get("traceEvents"), list):
        return trace
    raise ValueError(f"{path}: not a trace of torch.profiler, it has no list traceEvents")


def _rows(events: list[Event], kernels: list[Kernel], dtype: str) -> list[dict[str, Any]]:
    """One row a group: products by the operator that launched them, then the kernels on their own."""
    operators = {
        _args(event).get("External id"): shape
        for event in events
        if event.get("cat") == "cpu_op" and event.get("name") in PRODUCTS and (shape := _shape(event, dtype))
    }
    launched: dict[Any, list[Kernel]] = defaultdict(list)
    groups: dict[Key, list[tuple[int, float]]] = defaultdict(list)
    for row, event in kernels:
        operator = _args(event).get("External id")
        if operator in operators:
            launched[operator].append((row, event))
        else:
            groups[_collective(event) or _launch(event, dtype)].append((row, _seconds(event)))
    for operator, parts in launched.items():
        names = " + ".join(str(event.get("name")) for _, event in parts)
        key = (*operators[operator], ("kernels", names), ("graph", False))
        groups[key].append((parts[0][0], sum(_seconds(event) for _, event in parts)))
    return [_row(key, timings) for key, timings in groups.items()]


def _shape(event: Event, dtype: str) -> Key | None:
    place = PRODUCTS[event["name"]]
    dims = _args(event).get("Input Dims", [])
    types = _args(event).get("Input type", [])
    if len(dims) < place + 2 or len(dims[place]) != 2:
        return None
    (m, k), n = dims[place], dims[place + 1][-1]
    word = DTYPES.get(types[place], dtype) if len(types) > place else dtype
    return (("op", "gemm"), ("dtype", word), ("m", m), ("n", n), ("k", k))


def _collective(event: Event) -> Key | None:
    args = _args(event)
    op = COLLECTIVES.get(str(args.get("Collective name")))
    word = DTYPES.get(str(args.get("dtype")))
    if op is None or word not in ELEMENT_BYTES:
        return None
    elements = max(args.get("In msg nelems", 0), args.get("Out msg nelems", 0))
    size = elements * ELEMENT_BYTES[word]
    shape = (("op", op), ("dtype", word), ("gpus", args.get("Group size")), ("message_bytes", size))
    return (*shape, ("kernels", event.get("name")))


def _launch(event: Event, dtype: str) -> Key:
    args = _args(event)
    layer = f"grid={args.get('grid')} block={args.get('block')}"
    return (("op", "kernel"), ("dtype", dtype), ("layer", layer), ("kernels", event.get("name")))


def _row(key: Key, timings: list[tuple[int, float]]) -> dict[str, Any]:
    seconds = np.array([second for _, second in timings])
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    seen = {"latency_s": middle, "spread_s": high - low, "samples": len(seconds), "source_row": timings[0][0]}
    return {**dict(key), **seen}


def _seconds(event: Event) -> float:
    duration = event.get("dur")
    return float(duration) * MICROSECOND if isinstance(duration, int | float) else float("nan")


def _args(event: Event) -> Mapping[str, Any]:
    args = event.get("args")
    return args if isinstance(args, Mapping) else {}
