"""Attention over a cache: `width` query tokens per sequence, the last of the tokens the cache then holds.

Width 1 is decode, gamma + 1 verification, many a prefill chunk. Every kernel here computes the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec

import torch
from torch.nn.functional import scaled_dot_product_attention

from sim.profiling.place import Place

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(query, keys, values, lengths, window_tokens) -> out.

query and out [batch, width, heads, head_dim]; keys and values [batch, slots, kv_heads, head_dim], of which sequence b
fills `lengths[b]` (int32), its own `width` new tokens included; window_tokens 0 for none.
"""

KERNELS = ("sdpa", "flash", "triton", "vllm")


def kernels_at(place: Place, head_dims: Iterable[int] = ()) -> list[str]:
    """Kernels that can run here for heads of these widths, the one that serves decode and verification best first."""
    if not place.is_cuda:
        return ["sdpa"]
    found = [name for name in ("vllm", "triton") if find_spec(name) is not None]
    if any(dim < 16 or dim & (dim - 1) for dim in head_dims):
        found = [name for name in found if name != "triton"]
    return [*found, *(["flash"] if place.dtype != torch.float32 else []), "sdpa"]


def prefill_kernels_at(place: Place) -> list[str]:
    """The same for prefill chunks, which Triton's kernel here is not made for."""
    return [name for name in kernels_at(place) if name != "triton"]


def attend_with(kernel: str) -> Attend:
    """The kernel by its name.

    Raises:
        ValueError: the name is unknown.
    """
    if kernel == "triton":
        from sim.profiling.triton_attention import triton_attend

        return triton_attend
    if kernel == "vllm":
        from sim.profiling.engines import vllm_attend

        return vllm_attend
    if kernel not in KERNELS:
        raise ValueError(f"attention kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    return flash_attend if kernel == "flash" else sdpa_attend


def sdpa_attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, window_tokens: int
) -> torch.Tensor:
    """torch's scaled_dot_product_attention with a mask from the lengths: right for every batch, fast for none."""
    slots = torch.arange(keys.shape[1], device=query.device)
    positions = lengths[:, None] - query.shape[1] + torch.arange(query.shape[1], device=query.device)
    mask = slots <= positions[..., None]
    if window_tokens:
        mask &= slots > positions[..., None] - window_tokens
    out = scaled_dot_product_attention(
        query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask[:, None], enable_gqa=True
    )
    return out.transpose(1, 2)


def flash_attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, window_tokens: int
) -> torch.Tensor:
    """The FlashAttention that torch brings, which splits the cache over the SMs; every sequence must fill all slots.

    Called below `scaled_dot_product_attention`, whose `is_causal` aligns the mask with the first slot, not the last.
    """
    del lengths
    width, slots = query.shape[1], keys.shape[1]
    out = torch.ops.aten._flash_attention_forward(
        query,
        keys,
        values,
        None,
        None,
        width,
        slots,
        0.0,
        width > 1 or bool(window_tokens),
        False,
        window_size_left=window_tokens - 1 if window_tokens else None,
        window_size_right=0 if window_tokens else None,
    )
    return out[0]


def causal_prefill(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A whole prompt without history, by torch's own choice among its fused kernels; shapes as in `Attend`."""
    out = scaled_dot_product_attention(
        query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), is_causal=True, enable_gqa=True
    )
    return out.transpose(1, 2)
