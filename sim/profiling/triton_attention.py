"""Decode and verify attention in Triton: a cache split over the SMs, all query rows of a KV head in one tile.

torch's FlashAttention gives every query head a block of its own when several query tokens are verified, and so reads
the cache once per head; serving engines pack heads and tokens into one tile. This kernel does what they do.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

triton: Any = import_module("triton")
tl: Any = import_module("triton.language")

if TYPE_CHECKING:
    constexpr = int
    value = Any
else:
    # Triton reads a kernel's annotations: it must know the words, and takes the former as compile-time constants.
    constexpr, value = tl.constexpr, tl.tensor

_BLOCK = 64
"""Cached tokens per step of the loop."""

_MOST_ROWS = 64
"""Query rows per tile; more rows take several tiles, each of which reads the cache."""


def triton_attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, window_tokens: int
) -> torch.Tensor:
    """`sim.profiling.attention.Attend`.

    Raises:
        ValueError: head_dim is not a power of two of at least 16.
    """
    batch, width, heads, dim = query.shape
    if dim < 16 or dim & (dim - 1):
        raise ValueError(f"attention kernel triton needs a head_dim that is a power of two >= 16, got {dim}; use sdpa")
    slots, kv_heads = keys.shape[1], keys.shape[2]
    rows = width * (heads // kv_heads)
    tile = max(16, min(_MOST_ROWS, triton.next_power_of_2(rows)))
    tiles = -(-rows // tile)
    reach = min(slots, window_tokens + width) if window_tokens else slots
    splits = _splits(query.device, batch * kv_heads * tiles, reach)
    shape = (splits, batch * kv_heads, tiles * tile)
    weighted = torch.empty((*shape, dim), dtype=torch.float32, device=query.device)
    highest, total = (torch.empty(shape, dtype=torch.float32, device=query.device) for _ in range(2))
    # fmt: off
    _partial[batch * kv_heads, tiles, splits](
        query, keys, values, lengths, weighted, highest, total,
        query.stride(0), query.stride(1), query.stride(2), keys.stride(0), keys.stride(1), keys.stride(2),
        values.stride(0), values.stride(1), values.stride(2), 1 / math.sqrt(dim),
        width, heads // kv_heads, kv_heads, dim, tile, _BLOCK, window_tokens, num_warps=4,
    )
    # fmt: on
    out = torch.empty((batch, width, heads, dim), dtype=query.dtype, device=query.device)
    _merge[batch * kv_heads, rows](
        weighted, highest, total, out, splits, tiles * tile, width, heads // kv_heads, kv_heads, dim, num_warps=1
    )
    return out


def _splits(device: torch.device, blocks: int, reach: int) -> int:
    """Parts of the cache: two waves of blocks on the SMs, none shorter than four steps of the loop."""
    sms = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8
    return int(max(1, min(2 * sms // max(1, blocks), reach // (4 * _BLOCK), 64)))


def _partial_source(  # noqa: PLR0913, PLR0917 - a kernel has no objects
    query: value, keys: value, values: value, lengths: value, weighted: value, highest: value, total: value,
    query_batch: value, query_token: value, query_head: value, key_batch: value, key_token: value, key_head: value,
    value_batch: value, value_token: value, value_head: value, scale: value,
    WIDTH: constexpr, GROUP: constexpr, KV_HEADS: constexpr, DIM: constexpr, TILE: constexpr, BLOCK: constexpr,
    WINDOW: constexpr,
) -> None:  # fmt: skip
    """Online softmax of one tile of query rows over one part of one sequence's cache, in fp32."""
    pair, tile, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, kv_head = (pair // KV_HEADS).to(tl.int64), (pair % KV_HEADS).to(tl.int64)
    row = tile * TILE + tl.arange(0, TILE)
    token, head = row // GROUP, kv_head * GROUP + row % GROUP
    channel = tl.arange(0, DIM)
    length = tl.load(lengths + batch)
    position = length - WIDTH + token
    real = row < WIDTH * GROUP
    at = query + batch * query_batch + token[:, None] * query_token + head[:, None] * query_head + channel[None, :]
    q = tl.load(at, mask=real[:, None], other=0.0)
    first = 0
    if WINDOW > 0:
        first = tl.maximum(length - WIDTH - WINDOW + 1, 0)
    part = tl.cdiv(tl.cdiv(length - first, tl.num_programs(2)), BLOCK) * BLOCK
    begin = first + split * part
    end = tl.minimum(begin + part, length)
    peak = tl.full([TILE], -1.0e30, tl.float32)
    mass = tl.zeros([TILE], tl.float32)
    acc = tl.zeros([TILE, DIM], tl.float32)
    for start in range(begin, end, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        held = slot < end
        slot64 = slot.to(tl.int64)
        k_at = keys + batch * key_batch + kv_head * key_head + slot64[None, :] * key_token + channel[:, None]
        v_at = values + batch * value_batch + kv_head * value_head + slot64[:, None] * value_token + channel[None, :]
        k = tl.load(k_at, mask=held[None, :], other=0.0)
        v = tl.load(v_at, mask=held[:, None], other=0.0)
        seen = held[None, :] & (slot[None, :] <= position[:, None])
        if WINDOW > 0:
            seen = seen & (slot[None, :] > position[:, None] - WINDOW)
        score = tl.where(seen, tl.dot(q, k) * scale, -1.0e30)
        new_peak = tl.maximum(peak, tl.max(score, 1))
        weight = tl.where(seen, tl.exp(score - new_peak[:, None]), 0.0)
        fade = tl.exp(peak - new_peak)
        mass = mass * fade + tl.sum(weight, 1)
        acc = acc * fade[:, None] + tl.dot(weight.to(v.dtype), v)
        peak = new_peak
    place = (split * tl.num_programs(0) + pair) * (tl.num_programs(1) * TILE) + row
    tl.store(weighted + place.to(tl.int64)[:, None] * DIM + channel[None, :], acc)
    tl.store(highest + place, peak)
    tl.store(total + place, mass)


def _merge_source(  # noqa: PLR0913, PLR0917
    weighted: value, highest: value, total: value, out: value, splits: value, padded_rows: value,
    WIDTH: constexpr, GROUP: constexpr, KV_HEADS: constexpr, DIM: constexpr,
) -> None:  # fmt: skip
    """Join the parts of one query row."""
    pair, row = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, DIM)
    peak = -1.0e30
    mass = 0.0
    acc = tl.zeros([DIM], tl.float32)
    for split in range(splits):
        place = (split * tl.num_programs(0) + pair) * padded_rows + row
        part_peak = tl.load(highest + place)
        new_peak = tl.maximum(peak, part_peak)
        fade, gain = tl.exp(peak - new_peak), tl.exp(part_peak - new_peak)
        mass = mass * fade + tl.load(total + place) * gain
        acc = acc * fade + tl.load(weighted + place.to(tl.int64) * DIM + channel) * gain
        peak = new_peak
    batch, kv_head = pair // KV_HEADS, pair % KV_HEADS
    token, head = row // GROUP, kv_head * GROUP + row % GROUP
    place = ((batch * WIDTH + token) * KV_HEADS * GROUP + head).to(tl.int64) * DIM
    tl.store(out + place + channel, (acc / mass).to(out.dtype.element_ty))


_partial: Any = triton.jit(_partial_source)
_merge: Any = triton.jit(_merge_source)
