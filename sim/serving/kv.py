"""KV memory as the scheduler sees it: blocks of tokens, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KvLayout:
    """The KV pool of one rank.

    Attributes:
        blocks: blocks in the pool.
        block_tokens: tokens a block holds.
        block_bytes: bytes of a block over all layers, the draft's included.
        sequence_bytes: bytes set aside per sequence whatever its length (windows, linear states).
        lookahead_tokens: slots reserved per sequence and round beyond the query tokens.
    """

    blocks: int
    block_tokens: int
    block_bytes: float = 0.0
    sequence_bytes: float = 0.0
    lookahead_tokens: int = 0

    def blocks_for(self, tokens: int) -> int:
        """Blocks of a sequence with `tokens` tokens, its lookahead slots included."""
        return -(-(tokens + self.lookahead_tokens) // self.block_tokens)
