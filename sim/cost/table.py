"""Table mode: measured over fitted time, interpolated between measured sizes and carried past their edge.

What is interpolated is a factor on the fitted price, so past the edge of a table the roofline's utilisation there goes
on, and between two shapes, or far from any, the fitted constants take over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.cost.attention import RankAttention
from sim.cost.efficiency import DenseEfficiency
from sim.cost.moe import RankExperts
from sim.cost.shape import Count, Seconds, StepShape
from sim.cost.work import Amount, Gemm, Peaks

Floats = NDArray[np.float64]
Key = tuple[float, ...]

KEYS = ("key0", "key1", "key2", "key3")
COLUMNS = ("family", "dtype", *KEYS, "outer", "inner", "distinct", "ratio")
"""A table file: op family, data type, shape (n, k; experts, experts per token, hidden, width; heads, KV heads, head
dim and, in decode, query tokens per sequence), the two sizes (batch or number of the routing, and rows, tokens or keys
per sequence), distinct experts where there are any, and measured / fitted time."""

_REACH = 0.25
"""Octaves between two shapes at which a neighbour weighs as much as the fitted price."""

_NEIGHBOURS = 3

_TILE_ROWS = 64
"""Between measured sizes a GEMM goes up in steps of this many rows."""

_NEAR_DISTINCT = 0.02
"""Logarithms of distinct experts that count as the same."""


@dataclass(frozen=True, slots=True)
class Curves:
    """log(measured / fitted) over one size, a curve per level of the other, levels and sizes rising."""

    levels: Floats
    curves: tuple[tuple[Floats, Floats], ...]

    def at(self, level: Amount, size: Amount) -> Amount:
        """Linear along the size, then between the levels, constant past both edges."""
        rows = np.stack([np.interp(size, sizes, values) for sizes, values in self.curves])
        if len(rows) == 1:
            return rows[0]
        place = np.interp(level, self.levels, np.arange(len(self.levels)))
        low = np.minimum(place.astype(np.int64), len(rows) - 2)
        share = place - low
        below, above = (np.take_along_axis(rows, (low + step)[None], axis=0)[0] for step in (0, 1))
        return below * (1.0 - share) + above * share


@dataclass(frozen=True, slots=True)
class Grid:
    """One shape over two sizes, as curves along either: where a point was not measured, both have a say."""

    along_inner: Curves
    along_outer: Curves | None

    def at(self, outer: Amount, inner: Amount) -> Amount:
        """Mean of both directions, in the logarithms of the sizes."""
        outer, inner = np.broadcast_arrays(np.log1p(outer), np.log1p(inner))
        found = self.along_inner.at(outer, inner)
        return found if self.along_outer is None else 0.5 * (found + self.along_outer.at(inner, outer))


@dataclass(frozen=True, slots=True)
class RoutedGrid:
    """log(measured / fitted) of one expert layer: a curve over tokens per routing, with the experts that it hits."""

    curves: tuple[tuple[Floats, Floats, Floats], ...]

    def at(self, distinct: Amount, tokens: Amount) -> Amount:
        """The curves at `tokens`, weighed by how near their distinct experts come to `distinct`."""
        distinct, tokens = np.broadcast_arrays(np.log1p(distinct), np.log1p(tokens))
        total = weights = 0.0
        for sizes, values, hit in self.curves:
            apart = np.abs(np.interp(tokens, sizes, hit) - distinct)
            weight = 1.0 / (_NEAR_DISTINCT + apart) ** 2
            total = total + weight * np.interp(tokens, sizes, values)
            weights = weights + weight
        return total / weights


@dataclass(frozen=True, slots=True)
class KernelTable:
    """Grids by family and data type, then by shape."""

    grids: dict[tuple[str, str], dict[Key, Grid | RoutedGrid]] = field(default_factory=dict)

    def factor(self, family: str, dtype: str, key: Key, outer: Amount, inner: Amount) -> Amount:
        """Measured over fitted time at these sizes of this shape; 1 far from any measured shape."""
        grids = self.grids.get((family, dtype), {})
        exact = grids.get(key)
        if exact is not None:
            return np.exp(exact.at(outer, inner))
        near = sorted((_octaves(key, other), other) for other in grids)[:_NEIGHBOURS]
        weights = [(_REACH / distance) ** 2 for distance, _ in near]
        total: Amount = sum(
            (w * grids[other].at(outer, inner) for w, (_, other) in zip(weights, near, strict=True)), 0.0
        )
        return np.exp(total / (1.0 + sum(weights)))

    def gemm_s(self, gemm: Gemm, dtype: str, efficiency: DenseEfficiency, peaks: Peaks) -> Seconds:
        """Seconds of a GEMM, never below its bound: that of its rows rounded up to whole tiles."""
        padded = replace(gemm, m=tiled(gemm.m))
        factor = self.factor("dense", dtype, (float(gemm.n), float(gemm.k)), 0, padded.m)
        return _bounded(efficiency.gemm_s(padded, peaks) * factor, gemm.work.bound_s(peaks))

    def experts_s(
        self, experts: RankExperts, distinct: Amount, tokens: Count, dtype: str, fitted_s: Seconds, peaks: Peaks
    ) -> Seconds:
        """Seconds of a layer of routed experts, cut by tensor parallelism; under expert parallelism as fitted."""
        if experts.expert_parallel > 1:
            return fitted_s
        ffn = experts.ffn
        key = (ffn.experts, ffn.experts_per_token, experts.hidden, ffn.expert_width / experts.tensor_parallel)
        factor = self.factor("experts", dtype, tuple(float(part) for part in key), distinct, tokens)
        return _bounded(fitted_s * factor, experts.work(distinct, tokens).bound_s(peaks))

    def decode_s(self, rank: RankAttention, shape: StepShape, fitted_s: Seconds, peaks: Peaks) -> Seconds:
        """Seconds of decode attention; of full attention alone, other kinds as fitted."""
        if rank.attention.kind != "full":
            return fitted_s
        context = np.asarray(shape.context_tokens) / np.maximum(shape.sequences, 1)
        factor = self.factor("attention_decode", "bf16", self._decode_key(rank, shape), shape.sequences, context)
        return _bounded(fitted_s * factor, rank.decode_work(shape).bound_s(peaks))

    def prefill_s(self, rank: RankAttention, shape: StepShape, fitted_s: Seconds, peaks: Peaks) -> Seconds:
        """Seconds of prefill attention; of full attention alone, other kinds as fitted."""
        if rank.attention.kind != "full":
            return fitted_s
        keys = (np.asarray(shape.prefill_tokens) + shape.prefill_history_tokens) / np.maximum(shape.chunks, 1)
        factor = self.factor("attention_prefill", "bf16", _heads(rank), shape.chunks, keys)
        return _bounded(fitted_s * factor, rank.prefill_work(shape).bound_s(peaks))

    def _decode_key(self, rank: RankAttention, shape: StepShape) -> Key:
        """The shape at its width where that was measured, else at width 1, whose factor then holds for all widths."""
        measured = self.grids.get(("attention_decode", "bf16"), {})
        own = (*_heads(rank), float(shape.width)) if np.ndim(shape.width) == 0 else ()
        return own if own in measured else (*_heads(rank), 1.0)


def tiled(rows: Amount) -> Amount:
    """`rows` of a GEMM as its tiles compute them: whole tiles of 64 above the first."""
    whole: Amount = np.ceil(np.asarray(rows) / _TILE_ROWS) * _TILE_ROWS
    found: Amount = np.where(np.asarray(rows) > _TILE_ROWS, whole, rows)
    return found[()]


def grid(outer: Floats, inner: Floats, distinct: Floats, ratio: Floats) -> Grid | RoutedGrid:
    """The grid of one shape from rows; rows of the same sizes are averaged."""
    if np.isnan(distinct).all():
        along_inner = _curves(outer, inner, ratio)
        return Grid(along_inner, _curves(inner, outer, ratio) if len(along_inner.levels) > 1 else None)
    curves = []
    for routing in np.unique(outer):
        own = outer == routing
        sizes, values = _averaged(inner[own], np.log(ratio[own]))
        curves.append((sizes, values, _averaged(inner[own], np.log1p(distinct[own]))[1]))
    return RoutedGrid(tuple(curves))


def _curves(level: Floats, size: Floats, ratio: Floats) -> Curves:
    levels = np.unique(level)
    return Curves(np.log1p(levels), tuple(_averaged(size[level == one], np.log(ratio[level == one])) for one in levels))


def _averaged(size: Floats, values: Floats) -> tuple[Floats, Floats]:
    """log(1 + size), rising, and the mean of the values there."""
    sizes, places = np.unique(size, return_inverse=True)
    return np.log1p(sizes), np.bincount(places, values) / np.bincount(places)


def table_of(columns: dict[str, NDArray[Any]]) -> KernelTable:
    """A table from `COLUMNS` of equal length.

    Raises:
        ValueError: a ratio that is not positive and finite.
    """
    ratio = columns["ratio"].astype(np.float64)
    if not np.all(np.isfinite(ratio) & (ratio > 0)):
        raise ValueError("table: ratio must be finite and > 0 in every row")
    rows: dict[tuple[str, str], dict[Key, list[int]]] = {}
    keys = np.stack([columns[name].astype(np.float64) for name in KEYS], axis=1)
    for place, (family, dtype) in enumerate(zip(columns["family"], columns["dtype"], strict=True)):
        key = tuple(float(part) for part in keys[place] if not np.isnan(part))
        rows.setdefault((str(family), str(dtype)), {}).setdefault(key, []).append(place)
    outer, inner, distinct = (columns[name].astype(np.float64) for name in ("outer", "inner", "distinct"))
    grids = {
        kind: {key: grid(outer[at], inner[at], distinct[at], ratio[at]) for key, at in shapes.items()}
        for kind, shapes in rows.items()
    }
    return KernelTable(grids)


def read_kernel_table(path: Path) -> KernelTable:
    """The table file that `moesd-sim calibrate` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise FileNotFoundError(f"no kernel table {path}; write one with moesd-sim calibrate")
    try:
        found = pq.read_table(path, columns=list(COLUMNS), partitioning=None)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a kernel table: {str(error).splitlines()[0]}") from error
    if found.num_columns != len(COLUMNS):
        raise ValueError(f"{path}: a kernel table has the columns {', '.join(COLUMNS)}, got {found.column_names}")
    return table_of({name: found[name].to_numpy() for name in COLUMNS})


def _heads(rank: RankAttention) -> Key:
    return (float(rank.heads), float(rank.kv_heads), float(rank.attention.head_dim))


def _octaves(key: Key, other: Key) -> float:
    return float(np.linalg.norm(np.log2(np.asarray(key) / np.asarray(other))))


def _bounded(seconds: Amount, bound_s: Seconds) -> Seconds:
    bounded: Seconds = np.maximum(seconds, bound_s)
    return bounded
