"""Expert parallelism: how much the busiest rank holds, from sampled routing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.cost.routing import Routing
from sim.cost.shape import Count
from sim.cost.work import Amount

_SAMPLES = 400
_TOKENS = 2 ** np.arange(0, 18, dtype=np.int64)


def busiest_rank(routing: Routing, experts: int, per_token: int, ranks: int, tokens: Count) -> tuple[Amount, Amount]:
    """Expected distinct experts and (token, expert) rows on the busiest of `ranks` ranks.

    Args:
        routing: how tokens choose; its redundant copies of the most popular experts are dealt to the ranks so that
            their loads come close (EPLB).
        experts: E, routed experts of the layer.
        per_token: K, experts per token.
        ranks: each holds experts / ranks of them, in the order of their ids, which knows nothing of popularity.
        tokens: independent tokens that enter the layer.
    """
    distinct, rows = _sampled(_key(routing, experts, per_token), experts, per_token, ranks, routing.redundant_experts)
    at = np.log2(np.maximum(np.asarray(tokens, dtype=np.float64), 1.0))
    there = np.minimum(np.asarray(tokens, dtype=np.float64), 1.0)
    share = np.interp(at, np.arange(len(_TOKENS)), rows / (_TOKENS * per_token))
    return np.interp(at, np.arange(len(_TOKENS)), distinct) * there, share * tokens * per_token


def _key(routing: Routing, experts: int, per_token: int) -> tuple[float, ...]:
    return tuple(routing.shares(experts, per_token).tolist())


@lru_cache(maxsize=64)
def _sampled(
    shares: tuple[float, ...], experts: int, per_token: int, ranks: int, redundant: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over samples of the busiest rank's distinct experts and rows, at every count of tokens of the grid."""
    rng = np.random.default_rng(0)
    popularity = rng.permutation(np.asarray(shares))
    rank_of, copies = _dealt(popularity, ranks, redundant)
    held = np.zeros((len(rank_of), ranks))
    held[np.arange(len(rank_of)), rank_of] = 1.0
    owner = np.repeat(np.arange(experts), copies)
    distinct, rows = np.empty(len(_TOKENS)), np.empty(len(_TOKENS))
    for i, tokens in enumerate(_TOKENS.tolist()):
        counts = rng.binomial(tokens, np.minimum(popularity, 1.0), size=(_SAMPLES, experts))
        scale = tokens * per_token / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        slots = (counts / copies)[:, owner]
        rows[i] = np.mean((slots * scale @ held).max(axis=1))
        distinct[i] = np.mean((np.minimum(slots, 1.0) @ held).max(axis=1))
    return distinct, rows


def _dealt(popularity: NDArray[np.float64], ranks: int, redundant: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank of every slot, slots in order of expert, and copies of every expert."""
    experts = len(popularity)
    copies = np.ones(experts, dtype=np.int64)
    if not redundant:
        return np.arange(experts) * ranks // experts, copies
    for _ in range(redundant):
        copies[np.argmax(popularity / copies)] += 1
    loads, room = np.zeros(ranks), np.full(ranks, -(-(experts + redundant) // ranks))
    slot_load = np.repeat(popularity / copies, copies)
    rank_of = np.empty(len(slot_load), dtype=np.int64)
    for slot in np.argsort(-slot_load, kind="stable"):
        rank = int(np.argmin(np.where(room > 0, loads, np.inf)))
        rank_of[slot] = rank
        loads[rank] += slot_load[slot]
        room[rank] -= 1
    return rank_of, copies
