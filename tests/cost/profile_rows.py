"""A layer profile of our own making, as rows of a kernel trace: every time follows from a formula."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pandas as pd

from sim.calibration.checks import frame

LAYERS = 4
TOKENS = (1, 8, 64, 512, 2048)
SEQUENCES = (1, 4, 16, 64)
CONTEXTS = (16, 256, 1024, 4096)
CHUNKS = (16, 256, 1024)
HISTORIES = (0, 256, 1024)
EACH = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "act_fn", "rotary_emb")
CHAIN_S_PER_TOKEN = 6e-8
KV_HEADS = 8


def layer_s(name: str, tokens: int) -> float:
    return (1 + len(name) % 3) * (1e-5 + 2e-8 * tokens)


def row_s(sequences: int) -> float:
    return 1e-4 + 3e-7 * sequences


def decode_s(sequences: int, context: float) -> float:
    return 5e-6 + 2e-9 * sequences * context


def prefill_s(chunk: int, history: int) -> float:
    return 4e-6 + 1e-7 * chunk + 1e-8 * history


def mixed_s(chunk: int, history: int, sequences: int, context: float) -> float:
    """Not the sum of the two."""
    return prefill_s(chunk, history) + decode_s(sequences, context) + 2e-7 * sequences


def skewed_s(sequences: int, mean: float, longest: int) -> float:
    return max(decode_s(sequences, mean) + 1e-9 * (longest - mean), CHAIN_S_PER_TOKEN * longest)


def rows(skewed: bool = True, gpu: str = "h100_sxm", **more: Any) -> pd.DataFrame:
    """The profile's rows."""
    common = {"gpu": gpu, "engine": "vllm", "model": "own", "tensor_parallel": 1, "graph": False, "samples": 3,
              "dtype": "bf16", "kv_heads": KV_HEADS, "heads": 32, "head_dim": 128, **more}  # fmt: skip
    made = [*_layers(), *_attention(), *(_skewed() if skewed else ())]
    names = sorted({name for row in made for name in row})
    columns = {name: [row.get(name) for row in made] for name in names}
    return frame(len(made), {**common, **{name: pd.array(column) for name, column in columns.items()}})


def experts_s(hit: float) -> float:
    return 3e-5 + 4e-6 * hit


def with_experts(experts: int, per_token: int) -> pd.DataFrame:
    """The same with a MoE block of so many experts in every layer, timed from few to all of them."""
    points = list(itertools.product(TOKENS, (1, experts // 2, experts)))
    blocks = {"op": "moe_block", "gpu": "h100_sxm", "model": "own", "tensor_parallel": 1, "experts": experts,
              "experts_per_token": per_token, "tokens": [tokens for tokens, _ in points],
              "distinct_experts": [float(hit) for _, hit in points],
              "latency_s": [experts_s(hit) for _, hit in points]}  # fmt: skip
    return pd.concat([rows(), frame(len(points), blocks)], ignore_index=True)


def _layers() -> Iterable[dict[str, Any]]:
    for tokens in TOKENS:
        for name in (*EACH, "layernorm", "embedding", "final_layernorm"):
            op = {"layernorm": "norm", "final_layernorm": "norm", "embedding": "embedding", "act_fn": "activation",
                  "rotary_emb": "rope"}.get(name, "gemm")  # fmt: skip
            count = {"m": tokens} if op == "gemm" else {"tokens": tokens}
            yield {"op": op, "layer": name, "latency_s": layer_s(name, tokens), **count}
    for sequences in SEQUENCES:
        yield {"op": "lm_head", "layer": "lm_head", "tokens": sequences, "latency_s": 0.75 * row_s(sequences)}
        yield {"op": "sampling", "layer": "sampler", "batch": sequences, "latency_s": 0.25 * row_s(sequences)}


def _attention() -> Iterable[dict[str, Any]]:
    for n, context in itertools.product((*SEQUENCES, 128), CONTEXTS):
        yield {"op": "attention_decode", "batch": n, "context_tokens": context, "latency_s": decode_s(n, context)}
    for chunk, history in itertools.product(CHUNKS, HISTORIES):
        yield {"op": "attention_prefill", "batch": 1, "width": chunk, "context_tokens": history,
               "latency_s": prefill_s(chunk, history)}  # fmt: skip
    for chunk, history, n, context in itertools.product(CHUNKS, HISTORIES, SEQUENCES, CONTEXTS):
        yield {"op": "attention_mixed", "batch": n, "context_tokens": context, "chunk_tokens": chunk,
               "chunk_context_tokens": history, "latency_s": mixed_s(chunk, history, n, context)}  # fmt: skip


def _skewed() -> Iterable[dict[str, Any]]:
    for n, short in itertools.product((16, 64), (512, 1024, 2048)):
        longest = 8 * short
        mean = (longest + short * (n - 1)) // n
        yield {"op": "attention_skewed", "batch": n, "context_tokens": short, "long_sequences": 1, "chunk_tokens": 0,
               "chunk_context_tokens": 0, "long_context_tokens": longest,
               "latency_s": skewed_s(n, mean, longest)}  # fmt: skip
        yield {"op": "attention_decode", "layer": "uniform_at_mean", "batch": n, "context_tokens": mean,
               "latency_s": decode_s(n, mean)}  # fmt: skip
