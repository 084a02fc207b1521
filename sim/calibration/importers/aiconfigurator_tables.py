"""What the readers of AIConfigurator's tables share: its words, its units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.calibration.importers.words import translated

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {
    "bfloat16": "bf16",
    "half": "fp16",
    "default": "bf16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_block": "fp8_block",
    "int8": "int8",
    "sq": "int8",  # SmoothQuant: weights and activations
    "int8_wo": "int8_weight_only",
    "int4_wo": "int4_weight_only",
    "w4a16_mxfp4": "mxfp4_weight_only",
    "nvfp4": "nvfp4",
}

Columns = dict[str, Any]


def latency(table: pd.DataFrame) -> Columns:
    """Column `latency`, which these tables give in milliseconds."""
    return {"latency_s": table["latency"].to_numpy() * 1e-3}


def dtypes(column: pd.Series[Any]) -> Any:
    """The dtype words of the trace for those of the database."""
    return translated(column, DTYPES)
