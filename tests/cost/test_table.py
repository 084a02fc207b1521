"""A table: its own rows back, the edge's utilisation beyond it, the fitted price far from it."""

from __future__ import annotations

import numpy as np
import pytest

from sim.attention import Attention
from sim.cost.attention import RankAttention
from sim.cost.efficiency import DenseEfficiency
from sim.cost.shape import StepShape
from sim.cost.table import COLUMNS, KEYS, KernelTable, table_of, tiled
from sim.cost.work import Gemm, Peaks

PEAKS = Peaks(1e15, 4e12, 132)
EFFICIENCY = DenseEfficiency(memory_efficiency=0.8, compute_efficiency=0.7, fixed_s=2e-6, source="test")


def rows(family: str, key: tuple[int, ...], cases: list[tuple[float, float, float, float]]) -> dict[str, np.ndarray]:
    """Columns from (outer, inner, distinct, ratio)."""
    columns = {name: np.full(len(cases), np.nan) for name in KEYS}
    for name, part in zip(KEYS, key, strict=False):
        columns[name] = np.full(len(cases), float(part))
    for name, values in zip(("outer", "inner", "distinct", "ratio"), zip(*cases, strict=True), strict=True):
        columns[name] = np.array(values)
    return columns | {"family": np.full(len(cases), family), "dtype": np.full(len(cases), "bf16")}


def dense(cases: list[tuple[float, float]], key: tuple[int, int] = (4096, 4096)) -> KernelTable:
    return table_of(rows("dense", key, [(0.0, inner, np.nan, ratio) for inner, ratio in cases]))


def test_measured_sizes_come_back_and_edges_carry_on() -> None:
    table = dense([(1, 1.2), (64, 1.1), (1024, 0.9)])
    factor = table.factor("dense", "bf16", (4096.0, 4096.0), 0, np.array([1, 64, 1024, 8192]))
    assert factor == pytest.approx([1.2, 1.1, 0.9, 0.9])
    between = table.factor("dense", "bf16", (4096.0, 4096.0), 0, np.arange(64, 1024))
    assert np.all(np.diff(between) <= 0)


def test_repeated_rows_count_as_their_geometric_mean() -> None:
    table = dense([(8, 1.0), (8, 1.21), (64, 2.0)])
    assert table.factor("dense", "bf16", (4096.0, 4096.0), 0, 8) == pytest.approx(1.1)


def test_neighbours_fade_into_the_fitted_price() -> None:
    table = dense([(1, 1.5), (1024, 1.5)])
    near, far = (table.factor("dense", "bf16", (n, 4096.0), 0, 16) for n in (4224.0, 65536.0))
    assert 1.4 < near < 1.5
    assert 1.0 < far < 1.01
    assert table.factor("experts", "bf16", (8.0, 2.0, 4096.0, 14336.0), 8, 16) == 1.0
    assert table.factor("dense", "fp8", (4096.0, 4096.0), 0, 16) == 1.0


def test_a_batch_and_a_context_are_interpolated_each() -> None:
    cases = [
        (b, c, np.nan, 1 + 0.1 * i + 0.01 * j) for i, b in enumerate((1, 8, 64)) for j, c in enumerate((100, 1000))
    ]
    table = table_of(rows("attention_decode", (32, 8, 128, 1), cases))
    batch, context = np.array([1, 8, 64, 1000]), np.array([100, 1000, 100, 10_000])
    factor = table.factor("attention_decode", "bf16", (32.0, 8.0, 128.0, 1.0), batch, context)
    assert factor == pytest.approx([1.0, 1.11, 1.2, 1.21])


def test_verification_takes_its_own_width_or_else_that_of_decoding() -> None:
    one = rows("attention_decode", (32, 8, 128, 1), [(8, 1000, np.nan, 1.3), (64, 1000, np.nan, 1.3)])
    four = rows("attention_decode", (32, 8, 128, 4), [(8, 1000, np.nan, 1.6), (64, 1000, np.nan, 1.6)])
    table = table_of({name: np.concatenate([one[name], four[name]]) for name in one})
    rank = RankAttention(Attention(heads=32, kv_heads=8, head_dim=128), 1, 2.0, 0.0)
    for width, factor in ((1, 1.3), (4, 1.6), (2, 1.3)):
        shape = StepShape(sequences=16, width=width, context_tokens=16_000)
        assert table.decode_s(rank, shape, 1e-3, PEAKS) == pytest.approx(factor * 1e-3)


def test_experts_follow_the_routing_with_as_many_distinct_experts() -> None:
    even = [(0.0, t, min(128.0, 8.0 * t), 1.3) for t in (1, 16, 256)]
    skewed = [(1.0, t, hit, 0.7) for t, hit in ((1, 8.0), (16, 60.0), (256, 125.0))]
    table = table_of(rows("experts", (128, 8, 2048, 768), even + skewed))
    key = (128.0, 8.0, 2048.0, 768.0)
    assert table.factor("experts", "bf16", key, 128.0, 16) == pytest.approx(1.3, rel=0.01)
    assert table.factor("experts", "bf16", key, 60.0, 16) == pytest.approx(0.7, rel=0.01)
    assert table.factor("experts", "bf16", key, 8.0, 1) == pytest.approx(np.sqrt(1.3 * 0.7), rel=0.01)


def test_no_row_of_a_table_beats_the_bound() -> None:
    table = dense([(1, 0.1), (1024, 0.1)])
    gemm = Gemm(np.array([1, 64, 1024]), 4096.0, 4096.0)
    assert table.gemm_s(gemm, "bf16", EFFICIENCY, PEAKS) == pytest.approx(np.asarray(gemm.work.bound_s(PEAKS)))


def test_rows_go_up_in_whole_tiles_above_the_first() -> None:
    assert tiled(np.array([0, 1, 63, 64, 65, 128, 129])).tolist() == [0, 1, 63, 64, 128, 128, 192]


def test_bad_ratios_are_refused() -> None:
    with pytest.raises(ValueError, match="ratio must be finite and > 0"):
        dense([(1, 0.0)])
    assert set(COLUMNS) == set(rows("dense", (1, 1), [(0, 1, 1, 1)]))
