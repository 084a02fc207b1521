"""Decoder layers by the names that layer profilers print, as ops of the kernel trace.

A layer without an op of its own becomes the op `layer` under its name, so that no row is lost or mistaken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.calibration.importers.csv_table import Columns
from sim.calibration.importers.model_shapes import ModelShapes

if TYPE_CHECKING:
    import pandas as pd


def columns_of(name: str, tokens: pd.Series[Any], model: ModelShapes, tensor_parallel: int) -> Columns:
    """Op and shape columns of layer `name` over `tokens`, on one of `tensor_parallel` ranks.

    Shards follow Megatron: columns of the first matrix of a block, rows of the second; KV heads are at least one.
    """
    heads = model.heads // tensor_parallel
    kv_heads = max(model.kv_heads // tensor_parallel, 1)
    queries, keys = heads * model.head_dim, kv_heads * model.head_dim
    width, vocabulary = model.width // tensor_parallel, model.vocabulary // tensor_parallel
    gemms = {
        "qkv_proj": (queries + 2 * keys, model.hidden),
        "q_proj": (queries, model.hidden),
        "k_proj": (keys, model.hidden),
        "v_proj": (keys, model.hidden),
        "o_proj": (model.hidden, queries),
        "gate_up_proj": (2 * width, model.hidden),
        "gate_proj": (width, model.hidden),
        "up_proj": (width, model.hidden),
        "down_proj": (model.hidden, width),
        "gate": (model.experts, model.hidden),
        "expert.w1": (model.expert_width, model.hidden),  # one whole expert, not sharded
        "expert.w3": (model.expert_width, model.hidden),
        "expert.w2": (model.hidden, model.expert_width),
    }
    if name in gemms:
        n, k = gemms[name]
        return {"op": "gemm", "m": tokens, "n": n, "k": k}
    others: dict[str, Columns] = {
        "embedding": {"op": "embedding", "hidden": model.hidden},
        "qk_norm": {"op": "norm", "hidden": queries + keys},
        "act_fn": {"op": "activation", "hidden": width},
        "lm_head": {"op": "lm_head", "hidden": model.hidden, "vocabulary": vocabulary},
    }
    if name in others:
        return {"tokens": tokens, "layer": name, **others[name]}
    if name in ("rotary_emb", "rope"):
        return {"op": "rope", "tokens": tokens, "heads": heads, "kv_heads": kv_heads, "head_dim": model.head_dim}
    if name == "sampler":
        return {"op": "sampling", "batch": tokens, "vocabulary": vocabulary}
    if "norm" in name:
        return {"op": "norm", "tokens": tokens, "hidden": model.hidden, "layer": name}
    return {"op": "layer", "layer": name, "tokens": tokens, "tensor_parallel": tensor_parallel}
