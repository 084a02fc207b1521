"""The KV pool of a rank: what is free, what is held for a moment longer, what content it still has."""

from __future__ import annotations

from sim.serving.batch import Batch
from sim.serving.kv import KvLayout
from sim.serving.prefix import BlockIds, content_of
from sim.serving.sequence import Chunk, Sequence


class Pool:
    """Arithmetic of KV blocks; who holds which is the batch's.

    Attributes:
        peak_blocks: most blocks in use at the end of a step since content last had to go.

    Args:
        kv: its layout.
        ids: ids of blocks by content; None without prefix caching.
        drop_last_hit: the last block found is computed again, as EAGLE-like drafters need its hidden states (vLLM).
    """

    def __init__(self, kv: KvLayout, ids: BlockIds | None, drop_last_hit: bool = False) -> None:
        self.kv = kv
        self.content = content_of(ids) if ids is not None else None
        self._drop_last_hit = drop_last_hit
        self.peak_blocks = 0
        self._held = (-1, 0, 0)

    @property
    def shared(self) -> int:
        """Blocks that several sequences hold, counted once too often for each further one."""
        return self.content.shared if self.content is not None else 0

    @property
    def most_blocks(self) -> int:
        """Blocks that sequences may hold together, counting shared ones for each of them."""
        return self.kv.blocks + self.shared

    def hold(self, steps: int, finished: list[Sequence]) -> None:
        """`finished` keep slots and blocks in the plan of engine step `steps`, which was made before they ended."""
        blocks = sum(sequence.path.most_blocks for sequence in finished if sequence.path is not None)
        self._held = (steps, len(finished), blocks)

    def held_sequences(self, steps: int) -> int:
        """Slots held in the plan of engine step `steps`."""
        return self._held[1] if self._held[0] == steps else 0

    def used(self, batch: Batch, partial: Sequence | None, steps: int) -> int:
        """Blocks in use in the coming step before anybody is admitted, a partial prefill as far as it has come."""
        blocks = batch.blocks
        if self._held[0] == steps:
            blocks += self._held[2]
        if partial is not None:
            blocks += self.kv.blocks_for(partial.prefilled)
        return blocks - self.shared

    def chunk_blocks(self, chunks: list[Chunk]) -> int:
        """Blocks of the sequences that a step prefills, once it has."""
        return sum(self.kv.blocks_for(sequence.prefilled + tokens) for sequence, tokens, _ in chunks)

    def crowded(self, batch: Batch, partial: Sequence | None, steps: int) -> bool:
        """Whether the pool could run dry: not while it holds everybody's last round."""
        blocks = batch.most_blocks
        if self._held[0] == steps:
            blocks += self._held[2]
        if partial is not None:
            blocks += self.kv.blocks_for(partial.prefill_tokens)
        return blocks > self.kv.blocks and blocks - self.shared > self.kv.blocks

    def reach(self, blocks: int) -> None:
        """A step has ended with so many blocks in use, shared ones counted for each who holds them."""
        if blocks > self.peak_blocks:
            self.peak_blocks = blocks - self.shared

    def hit_tokens(self, sequence: Sequence) -> int:
        """Tokens of a waiting sequence's prefill that need not be computed: whole blocks, not the last token."""
        if self.content is None:
            return 0
        block_tokens = self.kv.block_tokens
        found = self.content.hits(sequence, (sequence.prefill_tokens - 1) // block_tokens)
        return max(0, found - self._drop_last_hit) * block_tokens

    def new_blocks(self, sequence: Sequence, hit_tokens: int, tokens: int) -> int:
        """Blocks that a waiting sequence takes from the free ones for `tokens` beyond its hits."""
        blocks = self.kv.blocks_for(hit_tokens + tokens)
        if hit_tokens and self.content is not None:
            blocks -= self.content.in_use(sequence, hit_tokens // self.kv.block_tokens)
        return blocks

    def admit(self, sequence: Sequence, hit_tokens: int) -> None:
        """A waiting sequence takes its hits."""
        if self.content is not None:
            sequence.prefilled = hit_tokens
            self.content.take(sequence, hit_tokens // self.kv.block_tokens)

    def fill(self, sequence: Sequence, tokens: int) -> None:
        """The first `tokens` tokens of `sequence` are computed: their blocks become known."""
        if self.content is not None:
            self.content.fill(sequence, tokens // self.kv.block_tokens)

    def free(self, sequence: Sequence, tokens: int) -> None:
        """`sequence`, with `tokens` tokens computed, gives its blocks back."""
        if self.content is not None:
            self.evict(0, -1)
            self.content.free(sequence, tokens // self.kv.block_tokens)

    def evict(self, used: int, steps: int) -> None:
        """Content goes where `used` blocks in use, or the most since it last went, leave no room for it.

        What is held for a moment in engine step `steps` holds content itself.
        """
        if self.content is not None:
            if self._held[0] == steps:
                used -= self._held[2]
            room = self.kv.blocks - max(used, self.peak_blocks)
            if self.content.blocks > room:
                self.content.keep(room)
            self.peak_blocks = 0
