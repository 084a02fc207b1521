"""Expert loads of AIConfigurator's synthetic routing, re-drawn: its tables name the distribution but not what it hit.

`balanced` deals the experts out in turn. `power_law_<exponent>` draws a load per expert from a truncated power law,
scales the loads to tokens x top-k, rounds them, caps each at the token count and evens the difference out over the
ranks, one by one, on the least (or most) loaded expert of each; the rank with the largest load is the one timed.
Read from the collector's `helper.py` (github.com/ai-dynamo/aiconfigurator); written anew for whole arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 32
"""Draws averaged per case; stratified per expert, so that 32 give activated experts within about 1 %."""

_Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class RankLoad:
    """What the timed rank computes, one value per token count.

    Attributes:
        distinct_experts: its experts that get a token at all.
        routed_tokens: its (token, expert) pairs.
    """

    distinct_experts: NDArray[np.float64]
    routed_tokens: NDArray[np.float64]


def balanced_load(
    tokens: NDArray[np.int64], experts: int, per_token: int, ranks: int, *, in_bf16: bool = False
) -> RankLoad:
    """Load of rank 0 of `ranks` when `tokens` are dealt out in turn.

    `in_bf16`: fewer tokens than strides are spread by a division whose result bf16 rounds, so that above expert 256
    neighbouring tokens fall on the same expert (512 experts, top-10, 48 tokens: 361 experts hit, not 473).
    """
    local = experts // ranks
    stride = -(-experts // per_token)
    slots = np.arange(per_token) * stride
    distinct, pairs = np.empty(len(tokens)), np.empty(len(tokens))
    for i, count in enumerate(tokens.tolist()):
        if count < stride:
            spread = (np.arange(count) * stride / count).astype(np.float32)[:, None]
            places = _bf16(_bf16(spread) + slots) if in_bf16 else spread + slots
            loads = np.bincount((places % experts).astype(np.int64).ravel(), minlength=experts)
        else:
            rest = (np.arange(count % experts)[:, None] + slots) % experts
            loads = np.bincount(rest.ravel(), minlength=experts) + count // experts * per_token
        distinct[i], pairs[i] = np.count_nonzero(loads[:local]), loads[:local].sum()
    return RankLoad(distinct, pairs)


def _bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest bf16 numbers, ties to even."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


@lru_cache(maxsize=4096)
def power_law_load(
    tokens: tuple[int, ...], experts: int, per_token: int, ranks: int, exponent: float, draws: int = DRAWS
) -> RankLoad:
    """Mean load of the fullest of `ranks` over `draws` draws of the truncated power law.

    Raises:
        ValueError: experts is not a multiple of ranks, or exponent is 1, where the law needs another formula.
    """
    if experts % ranks:
        raise ValueError(f"experts must be a multiple of ranks, got {experts} and {ranks}")
    if exponent == 1:
        raise ValueError("exponent must not be 1")
    count = np.array(tokens, np.int32)[:, None, None, None]
    loads = _scaled(count, _uniforms(experts, ranks, draws), per_token, np.float32(exponent))
    over = np.maximum(loads - count, 0).sum((2, 3))
    loads = _add(np.minimum(loads, count), over, count)
    missing = np.array(tokens, np.int32)[:, None] * np.int32(per_token) - loads.sum((2, 3), dtype=np.int32)
    loads = _add(loads, np.maximum(missing, 0), count)
    loads = count - _add((count - loads)[..., ::-1], np.maximum(-missing, 0), count)  # taking is adding upside down
    sums = loads.sum(3)
    fullest = np.take_along_axis(loads, sums.argmax(2)[..., None, None], 2)[:, :, 0]
    return RankLoad((fullest > 0).sum(2).mean(1), fullest.sum(2).mean(1))


@lru_cache(maxsize=64)
def _uniforms(experts: int, ranks: int, draws: int) -> NDArray[np.float32]:
    """`[draws, ranks, experts per rank]` in (0, 1), stratified over the draws, falling within a rank."""
    rng = np.random.default_rng(0)
    strata = rng.permuted(np.tile(np.arange(draws), (experts, 1)), axis=1).T
    points = ((strata + rng.random((draws, experts))) / draws).astype(np.float32).reshape(draws, ranks, -1)
    return np.sort(points, axis=2)


def _scaled(count: _Ints, points: NDArray[np.float32], per_token: int, exponent: np.float32) -> _Ints:
    """Rounded loads `[tokens, draws, ranks, experts per rank]`, rising within a rank."""
    experts = points.shape[1] * points.shape[2]
    many = count * per_token > experts
    low = np.where(many, 1.0, 0.01).astype(np.float32) ** (1 - exponent)
    high = np.where(many, 0.8 * count, 2.0).astype(np.float32) ** (1 - exponent)
    loads = np.exp(np.log((high - low) * points + low) / (1 - exponent))
    loads *= (count * per_token) / loads.sum((2, 3), keepdims=True)
    return np.rint(loads, out=loads).astype(np.int32)


def _add(loads: _Ints, amount: _Ints, bound: _Ints) -> _Ints:
    """`amount` `[tokens, draws]` units added in turn over the ranks, each to its least loaded expert below `bound`.

    `loads` rise within a rank, and still do afterwards.
    """
    touched = np.flatnonzero(amount.any(1))
    if not touched.size:
        return loads
    part = loads[touched]
    room = (bound[touched] - part).sum(3)
    raised = _raise_lowest(part, _in_turn(amount[touched], room))
    loads = loads.copy()
    loads[touched] = raised
    return loads


def _in_turn(amount: _Ints, room: _Ints) -> _Ints:
    """`amount` `[tokens, draws]` dealt one unit at a time over the ranks that still have `room` (last axis)."""
    ranks = room.shape[-1]
    if ranks == 1:
        return amount[..., None]
    rising = np.sort(room, axis=-1)
    filled = np.cumsum(rising, axis=-1)
    full = (filled + np.arange(ranks - 1, -1, -1) * rising <= amount[..., None]).sum(-1)  # ranks that fill up
    inside = np.where(full > 0, np.take_along_axis(filled, np.maximum(full - 1, 0)[..., None], -1)[..., 0], 0)
    level = np.where(full < ranks, (amount - inside) // np.maximum(ranks - full, 1), rising[..., -1])
    dealt: _Ints = np.minimum(level[..., None], room).astype(np.int32)
    rest = amount - dealt.sum(-1)
    open_ranks = room > level[..., None]
    one_more: _Ints = (open_ranks & (np.cumsum(open_ranks, axis=-1) <= rest[..., None])).astype(np.int32)
    return dealt + one_more


def _raise_lowest(loads: _Ints, amount: _Ints) -> _Ints:
    """`amount` units given one at a time to the lowest of the rising `loads` (last axis)."""
    places = np.arange(loads.shape[-1], dtype=np.int32)
    filled = np.cumsum(loads, axis=-1, dtype=np.int32)
    lifted = ((places + 1) * loads - filled <= amount[..., None]).sum(-1, keepdims=True).astype(np.int32)
    total = np.take_along_axis(filled, lifted - 1, -1) + amount[..., None]
    level, rest = np.divmod(total, lifted)
    return np.where(places < lifted, level + (places >= lifted - rest), loads)
