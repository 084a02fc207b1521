"""Admission: which waiting requests a step has room for."""

from __future__ import annotations

from collections.abc import Iterable

from sim.serving.batch import Batch
from sim.serving.pool import Pool
from sim.serving.sequence import Chunk, Sequence


class Room:
    """What a step has left for prefill once the decoding sequences are served.

    Attributes:
        decoding: sequences that decode in this step.
        decode_tokens: their query tokens.
        partial: the sequence whose prefill is under way, or None.
        free_blocks: KV blocks that neither they nor the partial hold.
        pool: the KV pool.
        decoded: a decode step has run since the rank was last empty.
        batch: the decoding sequences.
    """

    __slots__ = ("batch", "decode_tokens", "decoded", "decoding", "free_blocks", "partial", "pool")

    def __init__(
        self,
        decoding: int,
        decode_tokens: int,
        partial: Sequence | None,
        free_blocks: int,
        pool: Pool,
        decoded: bool,
        batch: Batch,
    ) -> None:
        self.decoding, self.decode_tokens, self.partial = decoding, decode_tokens, partial
        self.free_blocks, self.pool, self.decoded, self.batch = free_blocks, pool, decoded, batch

    def keeping(self, blocks: int) -> Room:
        """The same with so many of the free blocks kept back."""
        free = max(0, self.free_blocks - blocks)
        return Room(self.decoding, self.decode_tokens, self.partial, free, self.pool, self.decoded, self.batch)

    @property
    def future_blocks(self) -> int:
        """KV blocks that the running sequences will need in their last rounds and do not hold yet."""
        return self.batch.most_blocks - self.batch.blocks


def admit(
    waiting: Iterable[Sequence],
    room: Room,
    chunks: list[Chunk],
    budget: int,
    max_seqs: int,
    *,
    whole: bool = False,
) -> list[Chunk]:
    """Add prompts from the head of the queue to `chunks` until budget, sequences or KV blocks run out.

    Args:
        waiting: the queue.
        room: of the step, before `chunks`.
        chunks: what the step prefills already, the partial sequence's.
        budget: query tokens left.
        max_seqs: most sequences running at once.
        whole: a prompt is admitted only when all of it fits into the free blocks, not just its first chunk.
    """
    running, free = room.decoding + len(chunks), room.free_blocks
    kv = room.pool.kv
    for sequence, tokens, _ in chunks:
        free -= kv.blocks_for(sequence.prefilled + tokens) - kv.blocks_for(sequence.prefilled)
    for sequence in waiting:
        if budget <= 0 or running >= max_seqs:
            break
        hit_tokens = room.pool.hit_tokens(sequence)
        rest = sequence.prefill_tokens - hit_tokens
        tokens = min(budget, rest)
        blocks = room.pool.new_blocks(sequence, hit_tokens, tokens)
        if (room.pool.new_blocks(sequence, hit_tokens, rest) if whole else blocks) > free:
            break
        chunks.append(Chunk(sequence, tokens, hit_tokens))
        budget, free, running = budget - tokens, free - blocks, running + 1
    return chunks
