"""Schedulers: which prompts a step prefills. Decoding sequences all take part in every step that has them.

A scheduler is a value; the state it reads is the rank's. Adding one = one class here, one line in `sim.config`, one
YAML in `conf/scheduler/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from sim.serving.kv import KvLayout
from sim.serving.sequence import Sequence


class Chunk(NamedTuple):
    """`tokens` more of a sequence's prefill."""

    sequence: Sequence
    tokens: int


@dataclass(slots=True)
class Room:
    """What a step has left for prefill once the decoding sequences are served.

    Attributes:
        decoding: sequences that decode in this step.
        decode_tokens: their query tokens.
        partial: the sequence whose prefill is under way, or None.
        free_blocks: KV blocks that neither they nor the partial hold.
        kv: the layout of the pool.
    """

    decoding: int
    decode_tokens: int
    partial: Sequence | None
    free_blocks: int
    kv: KvLayout


@dataclass(kw_only=True, slots=True)
class Scheduler(ABC):
    """Bounds shared by every scheduler.

    Attributes:
        max_seqs: most sequences running at once (vLLM `max_num_seqs`).
        max_batched_tokens: most query tokens in a step (vLLM `max_num_batched_tokens`).
    """

    max_seqs: int = 256
    max_batched_tokens: int = 8192

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

    @abstractmethod
    def chunks(self, waiting: deque[Sequence], room: Room) -> list[Chunk]:
        """Prefill of this step, the partial sequence's chunk first; nothing is changed."""

    def heeds_arrival(self, waiting: deque[Sequence], decoding: int) -> bool:
        """Whether the newest of `waiting` could be admitted while what was planned before it still runs."""
        return len(waiting) == 1 and decoding < self.max_seqs


@dataclass(kw_only=True, slots=True)
class ChunkedPrefill(Scheduler):
    """vLLM V1: first come, first served; running before waiting; prompts cut to what the token budget leaves.

    Mirrors `vllm/v1/core/sched/scheduler.py` (0.10): every decoding sequence takes 1 + drafts tokens of the budget,
    then the prompt under way, then the queue from its head until budget, sequences or KV blocks run out.

    Attributes:
        whole_prompt_must_fit: admit a prompt only when all of it fits into the free blocks, not just its first chunk
            (`scheduler_reserve_full_isl` of later versions).
    """

    whole_prompt_must_fit: bool = False

    def chunks(self, waiting: deque[Sequence], room: Room) -> list[Chunk]:
        """The partial's next chunk, then admissions in order of the queue."""
        budget = self.max_batched_tokens - room.decode_tokens
        running, free = room.decoding, room.free_blocks
        chunks: list[Chunk] = []
        if room.partial is not None:
            chunks.append(Chunk(room.partial, min(budget, room.partial.unfilled_tokens)))
            budget -= chunks[0].tokens
            held = room.kv.blocks_for(room.partial.prefilled)
            free -= room.kv.blocks_for(room.partial.prefilled + chunks[0].tokens) - held
            running += 1
        for sequence in waiting:
            if budget <= 0 or running >= self.max_seqs:
                break
            tokens = min(budget, sequence.prefill_tokens)
            blocks = room.kv.blocks_for(tokens)
            must_fit = room.kv.blocks_for(sequence.prefill_tokens) if self.whole_prompt_must_fit else blocks
            if must_fit > free:
                break
            chunks.append(Chunk(sequence, tokens))
            budget, free, running = budget - tokens, free - blocks, running + 1
        return chunks
