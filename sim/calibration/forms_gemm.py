"""The forms of GEMMs, dense and of routed experts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.fit import Constant, Floats
from sim.calibration.form import ROOFLINE, WEIGHT_BYTES, Form, Judged, joined_cases, shapes_of
from sim.cost.efficiency import DenseEfficiency, ExpertEfficiency
from sim.cost.moe import RankExperts
from sim.cost.table import tiled
from sim.cost.work import Gemm, GroupedGemm, Work
from sim.layers import Ffn

if TYPE_CHECKING:
    import pandas as pd


_MOST_RANKS = 8


class DenseForm(Form):
    """GEMMs with n and k of 1,024 at least and 8,192 rows at most."""

    family, op, schema = "dense", "gemm", DenseEfficiency
    group, size = ("n", "k"), ("m",)
    constants: tuple[Constant, ...] = (
        *ROOFLINE,
        Constant("fixed_s", 3e-6, 0.0, 5e-5),
        Constant("exponent", 3.5, 1.0, 20.0),
        Constant("chain_s", 3e-6, 0.0, 2e-5),
        Constant("chain_rows_s", 2e-6, 0.0, 3e-5),
        Constant("chain_exponent", 1.7, 1.0, 10.0),
        Constant("depth_offset", 100.0, 0.0, 1000.0),
    )

    def selected(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        return ((rows["n"] >= 1024) & (rows["k"] >= 1024) & (rows["m"] <= 8192)).to_numpy(bool)

    def case(self, rows: pd.DataFrame, dtype: str) -> tuple[Gemm, Work]:
        m, n, k = (rows[name].to_numpy(np.float64) for name in ("m", "n", "k"))
        gemm = Gemm(m, n, k, WEIGHT_BYTES[dtype])
        return gemm, gemm.work

    def sizes(self, rows: pd.DataFrame) -> tuple[Floats, Floats]:
        """No outer size; rows in whole tiles."""
        return np.zeros(len(rows)), np.asarray(tiled(rows["m"].to_numpy(np.float64)))

    def table_price(self, efficiency: Any, judged: Judged) -> Floats:
        """Whole tiles of rows."""
        padded = replace(judged.case, m=tiled(judged.case.m))
        return np.asarray(efficiency.gemm_s(padded, judged.peaks))

    def price(self, efficiency: Any, judged: Judged) -> Floats:
        return np.asarray(efficiency.gemm_s(judged.case, judged.peaks))


class QuantisedForm(DenseForm):
    """GEMMs whose input is quantised before them."""

    constants: tuple[Constant, ...] = (*DenseForm.constants, Constant("input_passes", 2.0, 0.0, 20.0))


class ExpertForm(Form):
    """Routed experts, whole or cut over up to 8 ranks, 4,096 tokens at most, where the distinct experts are known.

    The error is that of whole experts.
    """

    family, op, schema = "experts", "experts", ExpertEfficiency
    group, size = ("experts", "experts_per_token", "hidden", "expert_width"), ("tokens", "routing")
    reads = ("distinct_experts",)
    constants: tuple[Constant, ...] = (
        *ROOFLINE,
        Constant("fixed_s", 2.5e-5, 0.0, 2e-4),
        Constant("exponent", 1.8, 1.0, 10.0),
        Constant("row_block", 64.0, 16.0, 256.0),
        Constant("block_growth", 1.5, 0.2, 8.0),
        Constant("skew_compute", 0.2, 0.0, 3.0),
        Constant("width_offset", 20.0, 0.0, 300.0),
        Constant("row_s", 5e-9, 0.0, 2e-7),
    )

    def sizes(self, rows: pd.DataFrame) -> tuple[Floats, Floats]:
        """Number of the routing among those of the trace, and tokens."""
        routing = np.unique(rows["routing"].to_numpy(str), return_inverse=True)[1]
        return routing.astype(np.float64), rows["tokens"].to_numpy(np.float64)

    def selected(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        whole = (rows["tensor_parallel"] <= _MOST_RANKS) & (rows["expert_parallel"] == 1)
        return (whole & (rows["tokens"] <= 4096)).to_numpy(bool)

    def headline(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Whole experts."""
        return (rows["tensor_parallel"] == 1).to_numpy(bool)

    def shape_columns(self, rows: pd.DataFrame) -> list[Floats]:
        """The width is that of the shard."""
        *others, width = super().shape_columns(rows)
        return [*others, width / rows["tensor_parallel"].to_numpy(np.float64)]

    def case(self, rows: pd.DataFrame, dtype: str) -> tuple[GroupedGemm, Work]:
        rows = rows.assign(gated=rows["gated"].fillna(value=True))
        shapes = shapes_of(rows, (*self.group, "gated", "tensor_parallel"))
        parts = [(group, self._layer(key, dtype).grouped(*_hit(group))) for key, group in shapes]
        skewed = rows["routing"].str.startswith("power_law").to_numpy(np.float64, na_value=0.0)
        grouped = replace(joined_cases(rows, parts), skew=skewed)
        return grouped, grouped.work

    def _layer(self, key: tuple[Any, ...], dtype: str) -> RankExperts:
        experts, per_token, hidden, width, gated, ranks = key
        ffn = Ffn(kind="moe", experts=experts, experts_per_token=per_token, expert_width=width, gated=bool(gated))
        return RankExperts(ffn, hidden, WEIGHT_BYTES[dtype], ranks)

    def price(self, efficiency: Any, judged: Judged) -> Floats:
        return np.asarray(efficiency.experts_s(judged.case, judged.peaks))


class BlockForm(ExpertForm):
    """Whole MoE blocks, the router's GEMM among them, where experts alone were not timed."""

    op = "moe_block"


def _hit(group: pd.DataFrame) -> tuple[Floats, NDArray[np.int64]]:
    """Distinct experts and tokens of every row."""
    return group["distinct_experts"].to_numpy(np.float64), group["tokens"].to_numpy(np.int64)
