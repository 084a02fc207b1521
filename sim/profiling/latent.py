"""Multi-head latent attention (MLA) from torch's own ops: absorbed at decode and verification, expanded in prefill.

Engines have fused kernels for it (FlashMLA); what these take is an upper bound of theirs.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def latent_attend(query: torch.Tensor, cache: torch.Tensor, kv_rank: int, head_dim: int) -> torch.Tensor:
    """Outputs [batch, width, heads, kv_rank] in the latent space, two batched products around a softmax.

    Args:
        query: [batch, width, heads, kv_rank + rope_dim], absorbed; the last `width` tokens of the cache.
        cache: [batch, tokens, kv_rank + rope_dim], filled.
        kv_rank: width of the latent, the values.
        head_dim: width of a head before absorption, which scales the scores.
    """
    batch, width, heads, _ = query.shape
    tokens = cache.shape[1]
    scores = torch.matmul(query.flatten(1, 2), cache.transpose(1, 2)).view(batch, width, heads, tokens)
    if width > 1:
        places = torch.arange(tokens, device=query.device)
        seen = places <= places[tokens - width :, None]
        scores = scores.masked_fill(~seen[:, None, :], float("-inf"))
    weights = torch.softmax(scores * head_dim**-0.5, dim=-1, dtype=torch.float32).to(cache.dtype)
    return torch.matmul(weights.flatten(1, 2), cache[..., :kv_rank]).view(batch, width, heads, kv_rank)


def latent_prefill(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Causal attention of a chunk over expanded keys and values, [batch, tokens, heads, dim] each."""
    width, tokens = query.shape[1], keys.shape[1]
    q, k, v = (part.transpose(1, 2) for part in (query, keys, values))
    if width == tokens:
        return scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    places = torch.arange(tokens, device=query.device)
    mask = places <= places[tokens - width :, None]
    return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
