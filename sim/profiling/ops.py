"""Builds the tensors of a single op and the callable that computes it, in the shapes of a `Case`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import embedding, linear

from sim.profiling.attention import attend_with, causal_prefill
from sim.profiling.cases import Case
from sim.profiling.engines import PAGE_TOKENS
from sim.profiling.experts import (
    activate,
    apply_experts,
    choose_experts,
    random_experts,
    route,
    router_logits,
)
from sim.profiling.latent import latent_attend, latent_prefill
from sim.profiling.layers import add_rms_norm, fuse, rotary_angles, rotate
from sim.profiling.place import Place
from sim.profiling.sampling import reject, sample
from sim.profiling.timing import Call


def build(case: Case, place: Place) -> Call:
    """The callable of one op; its tensors live as long as it does.

    Raises:
        ValueError: the op is not a single op of one GPU.
    """
    builders: dict[str, Callable[[Case, Place], Call]] = {
        "gemm": _gemm,
        "experts": _experts,
        "attention_prefill": _attention,
        "attention_decode": _attention,
        "mla_prefill": _latent_prefill,
        "mla_decode": _latent_decode,
        "norm": _norm,
        "activation": _activation,
        "embedding": _embedding,
        "rope": _rope,
        "lm_head": _lm_head,
        "sampling": _sampling,
        "rejection": _rejection,
    }
    if case.op not in builders:
        raise ValueError(f"{case.op} is not a single op; known: {', '.join(builders)}")
    return builders[case.op](case, place)


def _gemm(case: Case, place: Place) -> Call:
    m, n, k = (case.integer(name) for name in ("m", "n", "k"))
    rows, weight = place.randn(m, k), place.randn(n, k, scale=k**-0.5)
    return lambda: linear(rows, weight)


def _lm_head(case: Case, place: Place) -> Call:
    tokens, hidden, vocabulary = (case.integer(name) for name in ("tokens", "hidden", "vocabulary"))
    rows, weight = place.randn(tokens, hidden), place.randn(vocabulary, hidden, scale=hidden**-0.5)
    return lambda: linear(rows, weight)


def _experts(case: Case, place: Place) -> Call:
    names = ("tokens", "hidden", "experts", "experts_per_token", "expert_width", "tensor_parallel")
    tokens, hidden, experts, per_token, width, ranks = (case.integer(name) for name in names)
    weights = random_experts(place, experts, hidden, width // ranks, gated=bool(case.shape["gated"]))
    logits = router_logits(route(tokens, experts, per_token, str(case.shape["routing"])), experts, place)
    rows = place.randn(tokens, hidden)
    return lambda: apply_experts(rows, *choose_experts(logits, per_token), weights, case.kernel)


def _attention(case: Case, place: Place) -> Call:
    names = ("batch", "width", "context_tokens", "heads", "kv_heads", "head_dim", "window_tokens")
    batch, width, context, heads, kv_heads, dim, window = (case.integer(name) for name in names)
    total = context + width
    slots = total if case.kernel == "flash" else -(-total // PAGE_TOKENS) * PAGE_TOKENS
    query = place.randn(batch, width, heads, dim)
    keys, values = (place.randn(batch, slots, kv_heads, dim) for _ in range(2))
    if case.kernel == "sdpa" and not window and (width == 1 or context == 0):
        # Without a mask, torch may take its fused kernels.
        filled = keys[:, :total], values[:, :total]
        if width > 1:
            return lambda: causal_prefill(query, *filled)
        return lambda: torch.nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2), filled[0].transpose(1, 2), filled[1].transpose(1, 2), enable_gqa=True
        )
    lengths = torch.full((batch,), total, dtype=torch.int32, device=place.device)
    attend = attend_with(case.kernel)
    return lambda: attend(query, keys, values, lengths, window)


def _latent_prefill(case: Case, place: Place) -> Call:
    batch, width, context, heads = (case.integer(name) for name in ("batch", "width", "context_tokens", "heads"))
    assert case.attention is not None
    dim, value_dim, total = case.attention.head_dim, case.attention.value_width, context + width
    query, keys = place.randn(batch, width, heads, dim), place.randn(batch, total, heads, dim)
    values = place.randn(batch, total, heads, value_dim)
    return lambda: latent_prefill(query, keys, values)


def _latent_decode(case: Case, place: Place) -> Call:
    batch, width, context, heads = (case.integer(name) for name in ("batch", "width", "context_tokens", "heads"))
    assert case.attention is not None
    rank, dim = case.attention.kv_rank, case.attention.head_dim
    query = place.randn(batch, width, heads, rank + case.attention.rope_dim)
    cache = place.randn(batch, context + width, rank + case.attention.rope_dim)
    return lambda: latent_attend(query, cache, rank, dim)


def _norm(case: Case, place: Place) -> Call:
    tokens, hidden = case.integer("tokens"), case.integer("hidden")
    rows, residual, weight = place.randn(tokens, hidden), place.randn(tokens, hidden), place.randn(hidden)
    fused = fuse(add_rms_norm, case.kernel)
    return lambda: fused(rows, residual, weight)


def _activation(case: Case, place: Place) -> Call:
    gated = bool(case.shape["gated"])
    rows = place.randn(case.integer("tokens"), (2 if gated else 1) * case.integer("hidden"))
    fused = fuse(activate, case.kernel)
    return lambda: fused(rows, gated=gated)


def _embedding(case: Case, place: Place) -> Call:
    table = place.randn(case.integer("vocabulary"), case.integer("hidden"))
    tokens = place.integers(case.integer("vocabulary"), case.integer("tokens"))
    return lambda: embedding(tokens, table)


def _rope(case: Case, place: Place) -> Call:
    tokens, heads, dim = (case.integer(name) for name in ("tokens", "heads", "head_dim"))
    rows = place.randn(tokens, 1, heads, dim)
    angles = rotary_angles(place.integers(4096, tokens, 1), dim)
    fused = fuse(rotate, case.kernel)
    return lambda: fused(rows, *angles)


def _sampling(case: Case, place: Place) -> Call:
    logits = torch.randn(case.integer("batch"), case.integer("vocabulary"), device=place.device)
    return lambda: sample(logits)


def _rejection(case: Case, place: Place) -> Call:
    batch, width, vocabulary = (case.integer(name) for name in ("batch", "width", "vocabulary"))
    target = torch.randn(batch, width, vocabulary, device=place.device)
    proposal = torch.randn(batch, width - 1, vocabulary, device=place.device)
    drafts = place.integers(vocabulary, batch, width - 1)
    return lambda: reject(target, proposal, drafts)
