"""The forms of attention, prefill and decode."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sim.attention import Attention
from sim.calibration.fit import Constant, Floats
from sim.calibration.form import ROOFLINE, Form, Judged, joined_cases, shapes_of
from sim.cost.attention import RankAttention
from sim.cost.efficiency import DecodeEfficiency, PrefillEfficiency
from sim.cost.shape import StepShape
from sim.cost.work import AttentionCore, Work

if TYPE_CHECKING:
    import pandas as pd


class _AttentionForm(Form):
    group: ClassVar[tuple[str, ...]] = ("heads", "kv_heads", "head_dim")

    def selected(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        plain = (rows["kv_dtype"] == "bf16") & (rows["window_tokens"].fillna(0) == 0) & (rows["head_dim"] <= 256)
        return (plain & (rows["heads"] % rows["kv_heads"] == 0)).to_numpy(bool)

    def case(self, rows: pd.DataFrame, dtype: str) -> tuple[AttentionCore, Work]:
        parts = [(group, self.core(self.rank_of(key), group)) for key, group in shapes_of(rows, self.group)]
        joined = joined_cases(rows, parts)
        return joined, joined.work

    def rank_of(self, key: tuple[Any, ...]) -> RankAttention:
        """The attention of one shape group."""
        heads, kv_heads, head_dim = key
        return RankAttention(Attention(heads=heads, kv_heads=kv_heads, head_dim=head_dim), 1, 2.0, 0.0)

    @abstractmethod
    def core(self, rank: RankAttention, group: pd.DataFrame) -> AttentionCore:
        """The rows of one shape."""


class PrefillForm(_AttentionForm):
    """Prompts or chunks of 512 tokens at least."""

    family, op, schema = "attention_prefill", "attention_prefill", PrefillEfficiency
    size = ("width", "batch")
    constants: tuple[Constant, ...] = (
        *ROOFLINE,
        Constant("fixed_s", 1.2e-5, 0.0, 6e-5),
        Constant("exponent", 1.6, 1.0, 10.0),
        Constant("softmax_width", 40.0, 0.0, 300.0),
        Constant("token_s", 5e-9, 0.0, 1e-7),
        Constant("pair_s", 1e-7, 0.0, 1e-6),
    )

    def selected(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        return super().selected(rows) & (rows["width"] >= 512).to_numpy(bool)

    def core(self, rank: RankAttention, group: pd.DataFrame) -> AttentionCore:
        names = ("batch", "width", "context_tokens")
        batch, chunk, history = (group[name].to_numpy(np.int64) for name in names)
        shape = StepShape(
            chunks=batch, prefill_tokens=batch * chunk, prefill_history_tokens=batch * history,
            prefill_pairs=batch * (chunk * history + chunk * (chunk + 1) // 2),
        )  # fmt: skip
        return rank.prefill_core(shape)

    def price(self, efficiency: Any, judged: Judged) -> Floats:
        return np.asarray(efficiency.prefill_s(judged.case, judged.peaks))


_MOST_WIDTH = 64


class DecodeForm(_AttentionForm):
    """Decode and verification: up to 64 query tokens per sequence over a bf16 cache."""

    family, op, schema = "attention_decode", "attention_decode", DecodeEfficiency
    size = ("context_tokens", "batch", "width")
    keeps_in_l2 = True
    constants: tuple[Constant, ...] = (
        *ROOFLINE,
        Constant("fixed_s", 8e-6, 0.0, 5e-5),
        Constant("exponent", 1.5, 1.0, 10.0),
        Constant("wave_s", 2e-6, 0.0, 5e-5),
        Constant("wave_width_s", 1e-6, 0.0, 2e-5),
        Constant("sequence_s", 1e-8, 0.0, 1e-7),
        Constant("split_s", 1e-6, 0.0, 2e-5),
        Constant("token_s", 5e-9, 0.0, 1e-7),
        Constant("split_tokens", 1000.0, 64.0, 5000.0),
        Constant("l2_efficiency", 1.2, 0.2, 8.0),
    )

    def selected(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        return super().selected(rows) & (rows["width"] <= _MOST_WIDTH).to_numpy(bool)

    def shape_columns(self, rows: pd.DataFrame) -> list[Floats]:
        """The width makes another shape."""
        return [*super().shape_columns(rows), rows["width"].to_numpy(np.float64)]

    def core(self, rank: RankAttention, group: pd.DataFrame) -> AttentionCore:
        return rank.decode_core(decoding(group), tile_rows=64)

    def price(self, efficiency: Any, judged: Judged) -> Floats:
        return np.asarray(efficiency.decode_s(judged.case, judged.peaks, judged.in_l2))


def decoding(rows: pd.DataFrame) -> StepShape:
    """The rows of a decode op as steps of `sim.cost`."""
    batch, width, cached = (rows[name].to_numpy(np.int64) for name in ("batch", "width", "context_tokens"))
    return StepShape(sequences=batch, width=width, context_tokens=batch * cached)
