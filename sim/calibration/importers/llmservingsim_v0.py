"""LLMServingSim's older profiles: `<gpu>/<org>/<model>/tp<N>/{layers,attention}.csv[.gz]`.

**Hugging Face modules, not an engine's layers**: `engine` is `transformers`. Separate and unfused, rope and norms are
several times slower than what vLLM runs; the matrix products and the FlashAttention kernels are of use. The files do
not say whether fp16 or bf16 ran; they are imported as bf16, which these GPUs compute at the same rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sim.calibration.checks import Trace, concat, frame
from sim.calibration.faults import SPEED_MARGIN, Fault
from sim.calibration.importers.csv_table import Columns, Part, assembled, counts, read_csv, short_source
from sim.calibration.importers.layers import columns_of
from sim.calibration.importers.model_shapes import shapes_of
from sim.calibration.importers.vidur import attention_parts
from sim.calibration.importers.words import known
from sim.calibration.limits import LIMITED, least_seconds
from sim.hardware import known_gpus, read_gpu

GPUS = {"H100": "h100_sxm", "A6000": "a6000", "RTX3090": "rtx3090", "TPU-v6e-1": "TPU-v6e-1"}
NANOSECOND = 1e-9


def read_files(paths: Iterable[Path]) -> Trace:
    """All `paths`, one after the other; errors as in `read_file`."""
    return concat([read_file(path) for path in paths])


def read_file(path: Path) -> Trace:
    """One table of a profile.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a table, GPU, model or column that is not known; the message names the file.
    """
    table, folder = path.name.split(".")[0], path.parent
    gpu = known(path.parts[-5], GPUS, f"{path}: the fifth folder from the end")
    common: Columns = {"gpu": gpu, "engine": "transformers", "dtype": "bf16", "graph": False, "model": path.parts[-3]}
    source = short_source(path, 6)
    if table == "layers":
        parts = _layers(path, int(folder.name.removeprefix("tp")))
        return assembled(source, common, parts, [*_impossible(parts, gpu), _incomplete(parts)])
    if table == "attention":
        parts = [(rows, {**columns, "kv_dtype": "bf16"}) for rows, columns in attention_parts(path)]
        return assembled(source, common, parts, _impossible(parts, gpu))
    raise ValueError(f"{path}: no importer for a table of that name; known: layers, attention")


def _layers(path: Path, degree: int) -> list[Part]:
    table = read_csv(path, ("input", "tp_size", "latency(ns)"))
    if "layer_name" not in table:
        raise ValueError(f"{path}: column layer_name is missing")
    if (table["tp_size"] != degree).any():
        raise ValueError(f"{path}: tp_size must be {degree} as in the folder, got {table['tp_size'].iloc[0]}")
    try:
        shapes = shapes_of(path.parts[-3])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    parts: list[Part] = []
    for name, rows in table.groupby("layer_name", sort=False):
        columns = columns_of(str(name), counts(rows["input"]), shapes, degree)
        seconds = rows["latency(ns)"].to_numpy(np.float64) * NANOSECOND
        parts.append((rows, {"layer": str(name), "tensor_parallel": degree, **columns, "latency_s": seconds}))
    return parts


def _impossible(parts: list[Part], gpu: str) -> list[Fault]:
    """Parts one case of which beats the peaks: whatever was timed, it was not what their names say.

    Of the layers these are such as take 1 us whatever the size; of decode attention whole tables, whose sequences
    shared one stretch of cache (the time grows neither with the batch nor with its contexts).
    """
    masks = [np.zeros(len(rows), bool) for rows, _ in parts if len(rows)]
    if gpu not in known_gpus():
        return []
    for mask, (rows, columns) in zip(masks, [part for part in parts if len(part[0])], strict=True):
        op = columns["op"]
        if op in LIMITED:
            least = least_seconds(frame(len(rows), columns), op, "bf16", read_gpu(gpu))
            mask[:] = (columns["latency_s"] < least / SPEED_MARGIN).any()
    return [(np.concatenate(masks), "some cases of this layer are faster than the peaks allow: none is trusted")]


def _incomplete(parts: list[Part]) -> Fault:
    """Layers with less than half of the sizes of the fullest: their runs broke off, and what is there is about 2 us."""
    most = max(len(rows) for rows, _ in parts)
    masks = [np.full(len(rows), len(rows) < most / 2) for rows, _ in parts]
    return np.concatenate(masks), "less than half of the sizes of this layer were timed: none is trusted"
