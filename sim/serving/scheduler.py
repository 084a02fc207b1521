"""Schedulers: which prompts a step prefills. Decoding sequences all take part in every step that has them.

A scheduler is a value; the state it reads is the rank's. Adding one = one class, one line in `sim.options`, one
YAML in `conf/scheduler/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from sim.serving.batch import Batch
from sim.serving.pool import Pool
from sim.serving.sequence import Chunk, Sequence


@dataclass(slots=True)
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

    decoding: int
    decode_tokens: int
    partial: Sequence | None
    free_blocks: int
    pool: Pool
    decoded: bool
    batch: Batch

    @property
    def future_blocks(self) -> int:
        """KV blocks that the running sequences will need in their last rounds and do not hold yet."""
        return self.batch.most_blocks - self.batch.blocks


@dataclass(kw_only=True, slots=True)
class Scheduler(ABC):
    """Bounds shared by every scheduler.

    Attributes:
        max_seqs: most sequences running at once (vLLM `max_num_seqs`).
        max_batched_tokens: most query tokens in a step (vLLM `max_num_batched_tokens`).
        prefix_caching: blocks keep their content after they are freed, and prompts find it (vLLM V1 by default).
    """

    max_seqs: int = 256
    max_batched_tokens: int = 8192
    prefix_caching: bool = True

    def __post_init__(self) -> None:
        for name in ("max_seqs", "max_batched_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"scheduler.{name} must be >= 1, got {getattr(self, name)}")

    def check(self, width: int) -> None:
        """Refuse a budget that could not serve every running sequence in one step."""
        if self.max_seqs * width > self.max_batched_tokens:
            raise ValueError(
                f"scheduler.max_batched_tokens must be >= max_seqs x verify width = {self.max_seqs} x {width} = "
                f"{self.max_seqs * width}, got {self.max_batched_tokens}; raise it or lower scheduler.max_seqs"
            )

    @property
    def mixes(self) -> bool:
        """Whether decoding sequences take part in steps with prefill; otherwise they pause."""
        return True

    @abstractmethod
    def chunks(self, waiting: Iterable[Sequence], room: Room) -> list[Chunk]:
        """Prefill of this step, the partial sequence's chunk first; nothing is changed."""

    def place(self, waiting: deque[Sequence], sequence: Sequence) -> None:
        """Put a new arrival into the queue: at its end."""
        waiting.append(sequence)

    def victim(self, batch: Batch) -> Sequence:
        """Whom to preempt when the pool runs dry: who was admitted last."""
        return batch.sequences[next(reversed(batch.sequences))]

    def heeds_arrival(self, waiting: deque[Sequence], sequence: Sequence, decoding: int) -> bool:
        """Whether `sequence`, just placed, could be admitted while what was planned before it still runs.

        Whoever stands behind another could not: the plan in force already left the other waiting.
        """
        return waiting[0] is sequence and decoding < self.max_seqs

    def admit(
        self, waiting: Iterable[Sequence], room: Room, chunks: list[Chunk], budget: int, *, whole: bool = False
    ) -> list[Chunk]:
        """Add prompts from the head of the queue to `chunks` until budget, sequences or KV blocks run out.

        Args:
            waiting: the queue.
            room: of the step, before `chunks`.
            chunks: what the step prefills already, the partial sequence's.
            budget: query tokens left.
            whole: a prompt is admitted only when all of it fits into the free blocks, not just its first chunk.
        """
        running, free = room.decoding + len(chunks), room.free_blocks
        kv = room.pool.kv
        for sequence, tokens, _ in chunks:
            free -= kv.blocks_for(sequence.prefilled + tokens) - kv.blocks_for(sequence.prefilled)
        for sequence in waiting:
            if budget <= 0 or running >= self.max_seqs:
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
