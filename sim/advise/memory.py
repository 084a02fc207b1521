"""What a drafter takes of the GPUs' memory, and how much of the KV pool it leaves."""

from __future__ import annotations

from dataclasses import dataclass

from sim.memory import Resident
from sim.result import Result


@dataclass(frozen=True, slots=True)
class DrafterMemory:
    """Memory of one drafter beside its target.

    Attributes:
        weight_bytes: weights on one GPU.
        token_bytes, target_token_bytes: KV of one token on one GPU, the drafter's and the target's.
        lookahead_tokens: KV slots reserved per running sequence for drafts.
        pool_tokens, plain_pool_tokens: tokens that a replica's KV pool holds, with the drafter and without.
    """

    weight_bytes: float
    token_bytes: float
    target_token_bytes: float
    lookahead_tokens: int
    pool_tokens: int
    plain_pool_tokens: int


def drafter_memory(plain: Result, drafted: Result) -> DrafterMemory:
    """Read off two runs of one deployment, without the drafter and with it."""
    draft, target = drafted.cost.draft, drafted.cost.target
    resident = None if draft is None else Resident.of(draft)
    return DrafterMemory(
        weight_bytes=0.0 if resident is None else resident.weight_bytes,
        token_bytes=0.0 if resident is None else resident.token_bytes,
        target_token_bytes=Resident.of(target).token_bytes,
        lookahead_tokens=drafted.kv.lookahead_tokens,
        pool_tokens=drafted.kv.blocks * drafted.kv.block_tokens,
        plain_pool_tokens=plain.kv.blocks * plain.kv.block_tokens,
    )
