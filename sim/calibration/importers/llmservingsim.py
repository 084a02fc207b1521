"""LLMServingSim's layer profiles of its profiler 1.0: `<gpu>/<org>/<model>/<dtype>/tp<N>/<table>.csv[.gz]`.

vLLM's own layers, timed by its layer-wise profiler: kernel time in eager mode, mean of three iterations, microseconds;
tensor parallelism is emulated on one GPU by cutting the configuration, without collectives. GPU, model and engine
version come from `meta.yaml` beside the `tp<N>` folders. The older profiles are read by `llmservingsim_v0`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.checks import Trace, concat
from sim.calibration.faults import Fault
from sim.calibration.importers.csv_table import MICROSECOND, Columns, Part, assembled, counts, read_csv, short_source
from sim.calibration.importers.layers import columns_of
from sim.calibration.importers.model_shapes import ModelShapes, shapes_of
from sim.calibration.importers.words import gpu_name, known

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {"bf16": "bf16", "fp16": "fp16", "fp8": "fp8_block"}
ITERATIONS = 3
SKEW_SUMS_ITERATIONS = 3
"""Times of skew.csv are 3 x those of attention.csv for one batch (2.97 to 3.05): it holds the sum, not the mean."""

SKEW_MARGIN = 1.25
"""A skewed batch may leave the range between the uniform ones at its mean and at its longest by this factor."""


@dataclass(frozen=True, slots=True)
class _Profile:
    """What the folder and `meta.yaml` say of a table."""

    shapes: ModelShapes
    tensor_parallel: int
    common: Columns


def read_files(paths: Iterable[Path]) -> Trace:
    """All `paths`, one after the other; errors as in `read_file`."""
    return concat([read_file(path) for path in paths])


def read_file(path: Path) -> Trace:
    """One table of a profile, known by its name; `skew_fit.csv` is derived, not measured, and refused.

    Raises:
        FileNotFoundError: no such file, or no `meta.yaml`.
        ValueError: a table, model, column or word that is not known; the message names the file.
    """
    subset = re.fullmatch(r"(?P<model>.+)__(?P<dtype>\w+)__tp(?P<tp>\d+)__moe\.csv", path.name)
    if subset:
        common = {"gpu": "rtx_pro_6000", "engine_version": "0.28.0"}
        profile = _profile(path, subset["model"], subset["dtype"], subset["tp"], common)
        parts, suspects = _moe(path, profile)
        return assembled(path.name, profile.common, parts, suspects)
    reader = READERS.get(path.name.split(".")[0])
    if reader is None:
        raise ValueError(f"{path}: no importer for a table of that name; known: {', '.join(READERS)}")
    profile = _described(path)
    parts, suspects = reader(path, profile)
    return assembled(short_source(path, 6), profile.common, parts, suspects)


def _described(path: Path) -> _Profile:
    import yaml

    meta_path = path.parent.parent / "meta.yaml"
    if not meta_path.is_file():
        raise FileNotFoundError(f"{path}: no {meta_path}, which names GPU, model and engine version")
    meta = yaml.safe_load(meta_path.read_text())
    missing = [name for name in ("gpu", "vllm_version", "model", "variant") if name not in (meta or {})]
    if missing:
        raise ValueError(f"{meta_path}: {', '.join(missing)} is missing")
    degree = re.fullmatch(r"tp(\d+)", path.parent.name)
    if degree is None:
        raise ValueError(f"{path}: its folder must be tp<N>, got {path.parent.name!r}")
    common = {"gpu": gpu_name(meta["gpu"]), "engine_version": str(meta["vllm_version"])}
    return _profile(path, meta["model"], meta["variant"], degree[1], common)


def _profile(path: Path, model: str, dtype: str, degree: str, common: Columns) -> _Profile:
    try:
        shapes, word = shapes_of(model), known(dtype, DTYPES, "dtype")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    common = {**common, "engine": "vllm", "dtype": word, "graph": False, "samples": ITERATIONS}
    name = model.rsplit("/", 1)[-1]
    return _Profile(shapes, int(degree), {**common, "model": name, "tensor_parallel": int(degree)})


def _layers(column: str) -> Callable[[Path, _Profile], tuple[list[Part], list[Fault]]]:
    def read(path: Path, profile: _Profile) -> tuple[list[Part], list[Fault]]:
        table = read_csv(path, (column, "time_us"))
        if "layer" not in table:
            raise ValueError(f"{path}: column layer is missing")
        parts: list[Part] = []
        for name, rows in table.groupby("layer", sort=False):
            shape = columns_of(str(name), counts(rows[column]), profile.shapes, profile.tensor_parallel)
            parts.append((rows, {"layer": str(name), **shape, "latency_s": _seconds(rows["time_us"])}))
        return parts, []

    return read


def _moe(path: Path, profile: _Profile) -> tuple[list[Part], list[Fault]]:
    """Whole MoE blocks whose router was forced onto `activated_experts`."""
    table = read_csv(path, ("tokens", "activated_experts", "time_us"))
    shapes = profile.shapes
    ranks = table["ep"].to_numpy(np.int64) if "ep" in table else np.ones(len(table), np.int64)
    columns = {
        "op": "moe_block", "routing": "forced", "gated": True, "tokens": counts(table["tokens"]),
        "distinct_experts": table["activated_experts"], "routed_tokens": table["tokens"] * shapes.experts_per_token,
        "hidden": shapes.hidden, "experts": shapes.experts or None,
        "experts_per_token": shapes.experts_per_token or None, "expert_width": shapes.expert_width or None,
        "expert_parallel": ranks, "latency_s": _seconds(table["time_us"]),
    }  # fmt: skip
    return [(table, columns)], [(ranks > 1, "tokens are those of one rank, not of the layer")]


def _attention(path: Path, profile: _Profile) -> tuple[list[Part], list[Fault]]:
    """The four axes: one request's prefill chunk with its history, and decodes with one context length."""
    axes = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    table = read_csv(path, (*axes, "time_us"))
    chunk, history, decodes, context = (table[name] for name in axes)
    return _batches(table, chunk, history, decodes, context, table["time_us"], profile), []


def _skew(path: Path, profile: _Profile) -> tuple[list[Part], list[Fault]]:
    """Batches of two context lengths, and the uniform ones at their mean and at their longest (layer says which)."""
    axes = ("n", "nb", "pc", "kp", "kvs", "kv_big", "kv_mean")
    table = read_csv(path, (*axes, "t_mean_us", "t_max_us", "t_skew_us"))
    n, long, chunk, history, short, longest, mean = (counts(table[name]) for name in axes)
    one, most, time = (table[name] / SKEW_SUMS_ITERATIONS for name in ("t_mean_us", "t_max_us", "t_skew_us"))
    skewed = {
        "op": "attention_skewed", "batch": n, "width": 1, "context_tokens": short, "long_sequences": long,
        "long_context_tokens": longest, "chunk_tokens": chunk, "chunk_context_tokens": history,
        **_heads(profile), "latency_s": _seconds(time),
    }  # fmt: skip
    parts: list[Part] = [(table, skewed)]
    outside = _outside(time, one, most)
    for label, context, latency in (("uniform_at_mean", mean, one), ("uniform_at_longest", longest, most)):
        parts += [
            (rows, {**columns, "layer": label})
            for rows, columns in _batches(table, chunk, history, n, context, latency, profile)
        ]
    rest = sum(len(rows) for rows, _ in parts) - len(table)
    reason = f"skewed batch more than {SKEW_MARGIN} x outside the uniform ones it lies between"
    return parts, [(np.concatenate([outside, np.zeros(rest, bool)]), reason)]


def _outside(time: pd.Series[Any], mean: pd.Series[Any], longest: pd.Series[Any]) -> NDArray[np.bool_]:
    low, high = np.minimum(mean, longest), np.maximum(mean, longest)
    return ((time < low / SKEW_MARGIN) | (time > high * SKEW_MARGIN)).to_numpy(bool)


def _batches(
    table: pd.DataFrame, chunk: Any, history: Any, decodes: Any, context: Any, time: Any, profile: _Profile
) -> list[Part]:
    """Prefill, decode or both together, row by row."""
    parts: list[Part] = []
    for op, mask in (
        ("attention_prefill", (decodes == 0) & (chunk > 0)),
        ("attention_decode", (decodes > 0) & (chunk == 0)),
        ("attention_mixed", (decodes > 0) & (chunk > 0)),
    ):
        at = mask.fillna(value=False).to_numpy(bool)
        columns = {"op": op, **_heads(profile), "latency_s": _seconds(time[at])}
        if op == "attention_prefill":
            columns |= {"batch": 1, "width": counts(chunk[at]), "context_tokens": counts(history[at])}
        else:
            columns |= {"batch": counts(decodes[at]), "width": 1, "context_tokens": counts(context[at])}
        if op == "attention_mixed":
            columns |= {"chunk_tokens": counts(chunk[at]), "chunk_context_tokens": counts(history[at])}
        parts.append((table[at], columns))
    return parts


def _heads(profile: _Profile) -> Columns:
    shapes, degree = profile.shapes, profile.tensor_parallel
    heads = {"heads": shapes.heads // degree, "kv_heads": max(shapes.kv_heads // degree, 1)}
    return {**heads, "head_dim": shapes.head_dim, "kv_dtype": "bf16", "window_tokens": 0}


def _seconds(time_us: pd.Series[Any]) -> NDArray[np.float64]:
    return time_us.to_numpy(np.float64) * MICROSECOND


READERS = {
    "dense": _layers("tokens"),
    "per_sequence": _layers("sequences"),
    "attention": _attention,
    "moe": _moe,
    "skew": _skew,
}
