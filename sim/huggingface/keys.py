"""The keys of a config: aliases of one meaning, and the few model types whose code fixes what a config leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
EXPERT_WIDTH = ("moe_intermediate_size", "intermediate_size")

TIED = ("opt", "gemma", "gemma2", "gemma3_text", "cohere", "cohere2")
"""Model types that tie embeddings where their config does not say."""

UNGATED = ("arcee", "gpt_neox", "nemotron", "opt", "phi", "starcoder2")
"""Model types whose FFN has two matrices."""

QKV_BIAS = ("qwen2", "qwen2_moe")
OUT_BIAS = ("gpt_oss", "llama", "opt", "qwen3", "qwen3_moe")
"""Model types with biases on q, k, v whatever the config says, and those whose attention bias covers the output too."""


def first(config: Config, keys: tuple[str, ...]) -> Any:
    """Value of the first of `keys` that is there and not null."""
    return next((config[key] for key in keys if config.get(key) is not None), None)
