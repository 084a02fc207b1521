"""Shapes of the models that layer profiles name without giving their sizes; whole-model figures of config.json."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelShapes:
    """Sizes of one decoder layer and the vocabulary; `expert_width` and the expert counts are 0 for dense models."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    vocabulary: int
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0


SHAPES = {
    "Llama-3.1-8B": ModelShapes(4096, 32, 8, 128, 14336, 128256),
    "Llama-3.1-70B": ModelShapes(8192, 64, 8, 128, 28672, 128256),
    "Llama-3.2-1B-Instruct": ModelShapes(2048, 32, 8, 64, 8192, 128256),
    "Qwen3-8B": ModelShapes(4096, 32, 8, 128, 12288, 151936),
    "Qwen3-32B": ModelShapes(5120, 64, 8, 128, 25600, 151936),
    "Qwen3-30B-A3B-Instruct-2507": ModelShapes(2048, 32, 4, 128, 6144, 151936, 128, 8, 768),
    "Mixtral-8x7B-v0.1": ModelShapes(4096, 32, 8, 128, 14336, 32000, 8, 2, 14336),
    "Phi-mini-MoE-instruct": ModelShapes(4096, 32, 8, 128, 960, 32064, 16, 2, 960),
    "DeepSeek-V3.2-Exp": ModelShapes(7168, 128, 128, 192, 18432, 129280, 256, 8, 2048),
}


def shapes_of(model: str) -> ModelShapes:
    """The shapes of `model`, named with or without its organisation.

    Raises:
        ValueError: not among `SHAPES`.
    """
    name = model.rsplit("/", 1)[-1]
    if name not in SHAPES:
        raise ValueError(f"model must be one of {', '.join(SHAPES)}, got {model!r}; add its shapes to model_shapes.py")
    return SHAPES[name]
