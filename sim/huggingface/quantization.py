"""Bytes per weight from the `quantization_config` of a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.attention import check

MXFP4_BYTES = (4 + 8 / 32) / 8
"""4 bits and one 8-bit scale per 32 weights (OCP Microscaling Formats 1.0, section 5.2)."""


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes per weight and per KV element, as the same-named fields of Model."""

    weight_bytes: float = 2.0
    expert_weight_bytes: float = 0.0
    kv_bytes: float = 2.0


def read_quantization(config: Mapping[str, Any], moe: bool) -> WeightBytes:
    """What a `quantization_config` makes of the weights; an empty one means bf16, the dtype engines serve.

    Where attention is left out of the conversion of a MoE model, only the routed experts are narrow. Group scales of
    int formats (2 to 4 % of the weights) are left out.

    Raises:
        ValueError: the format is unknown or not one width.
    """
    if not config:
        return WeightBytes()
    scheme = config.get("kv_cache_scheme") or {}
    kv_bytes = scheme.get("num_bits", 16) / 8
    narrow = _narrow_bytes(config)
    kept = config.get("modules_to_not_convert") or config.get("ignore") or config.get("ignored_layers") or []
    if moe and any("attn" in name for name in kept):
        return WeightBytes(expert_weight_bytes=narrow, kv_bytes=kv_bytes)
    return WeightBytes(weight_bytes=narrow, kv_bytes=kv_bytes)


def _narrow_bytes(config: Mapping[str, Any]) -> float:
    """Bytes per converted weight."""
    method = config.get("quant_method")
    if method == "mxfp4":
        return MXFP4_BYTES
    if method in ("fp8", "fbgemm_fp8") or config.get("load_in_8bit"):
        return 1.0
    if config.get("load_in_4bit"):
        return 0.5
    groups = (config.get("config_groups") or {}).values()
    widths = {group["weights"]["num_bits"] for group in groups if group.get("weights")} or {_plain_bits(config)}
    check(
        len(widths) == 1 and widths <= {2, 3, 4, 8},
        f"quantization_config of method {method!r} must convert to one known width; set weight_bytes in a model YAML",
    )
    return float(widths.pop()) / 8


def _plain_bits(config: Mapping[str, Any]) -> object:
    return config.get("bits") or config.get("w_bit")
