"""The form of decode attention over a latent cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.attention import Attention
from sim.calibration.fit import Constant, Floats
from sim.calibration.form import ROOFLINE, Form, Judged, joined_cases, shapes_of
from sim.calibration.forms_attention import decoding
from sim.cost.attention import RankAttention
from sim.cost.latent import LatentCore, LatentEfficiency
from sim.cost.work import Work

if TYPE_CHECKING:
    import pandas as pd

TILE_ROWS = 64
"""Query rows of a tile: those of one warpgroup's matrix instruction on Hopper."""


class LatentForm(Form):
    """Decode over the latent cache of DeepSeek's MLA (512 + 64 elements per token, bf16), absorbed; a width of 1.

    A shape is a number of query heads on the GPU, 1 to 128.
    """

    family, op, schema = "attention_latent", "mla_decode", LatentEfficiency
    group = ("heads",)
    size = ("context_tokens", "batch", "width")
    keeps_in_l2 = True
    constants: tuple[Constant, ...] = (
        *ROOFLINE,
        Constant("fixed_s", 8e-6, 0.0, 5e-5),
        # Loads and products overlap, so the corner is sharp. A soft one errs 0.3 to 1.3 points less on these rows, but
        # with a compute efficiency of 1 on H100, and that would price several tokens per sequence, which no row has.
        Constant("exponent", 5.0, 4.0, 10.0),
        Constant("wave_s", 4e-6, 0.0, 5e-5),
        Constant("wave_rows_s", 4e-6, 0.0, 5e-5),
        Constant("wave_exponent", 1.1, 1.0, 10.0),
        Constant("split_s", 1e-6, 0.0, 2e-5),
        Constant("split_row_s", 1e-9, 0.0, 1e-7),
        Constant("token_s", 1e-9, 0.0, 1e-6),
        Constant("split_tokens", 1000.0, 64.0, 1e6),
        Constant("l2_efficiency", 1.2, 0.2, 8.0),
    )

    def selected(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        return ((rows["kv_dtype"] == "bf16") & (rows["width"] == 1)).to_numpy(bool)

    def case(self, rows: pd.DataFrame, dtype: str) -> tuple[LatentCore, Work]:
        parts = [
            (group, latent_rank(heads).latent_core(decoding(group), TILE_ROWS))
            for (heads,), group in shapes_of(rows, self.group)
        ]
        joined: Any = joined_cases(rows, parts)
        return joined, joined.work

    def price(self, efficiency: Any, judged: Judged) -> Floats:
        return np.asarray(efficiency.latent_s(judged.case, judged.peaks, judged.in_l2))


def latent_rank(heads: int) -> RankAttention:
    """DeepSeek's MLA with `heads` query heads on the GPU, over a bf16 cache."""
    latent = Attention(kind="mla", heads=heads, kv_heads=1, head_dim=192, value_dim=128, kv_rank=512, rope_dim=64)
    return RankAttention(latent, 1, 2.0, 0.0)
