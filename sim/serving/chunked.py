"""Schedulers that mix prefill with decoding: prompts are cut to what the token budget of a step leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sim.serving.admission import Room, admit
from sim.serving.batch import Batch
from sim.serving.scheduler import Scheduler
from sim.serving.sequence import Chunk, Sequence


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

    def chunks(self, waiting: Iterable[Sequence], room: Room) -> list[Chunk]:
        """The partial's next chunk, then admissions in order of the queue."""
        budget = self.max_batched_tokens - room.decode_tokens
        chunks: list[Chunk] = []
        if room.partial is not None:
            chunks.append(Chunk(room.partial, min(budget, room.partial.unfilled_tokens)))
            budget -= chunks[0].tokens
        return admit(waiting, room, chunks, budget, self.max_seqs, whole=self.whole_prompt_must_fit)


@dataclass(kw_only=True, slots=True)
class DecodePriority(ChunkedPrefill):
    """Sarathi-Serve (arXiv 2403.02310): a small budget keeps steps short, chunks end at multiples of a tile.

    Attributes:
        chunk_multiple: a chunk that does not complete its prompt is cut down to a multiple of this (their tile
            quantisation, section 4.3).
    """

    chunk_multiple: int = 128

    def __post_init__(self) -> None:
        Scheduler.__post_init__(self)
        if not 1 <= self.chunk_multiple <= self.max_batched_tokens:
            raise ValueError(
                f"scheduler.chunk_multiple must lie in [1, max_batched_tokens = {self.max_batched_tokens}], "
                f"got {self.chunk_multiple}"
            )

    def chunks(self, waiting: Iterable[Sequence], room: Room) -> list[Chunk]:
        """Those of ChunkedPrefill, the last one cut; alone in a step it is not cut to nothing."""
        chunks = ChunkedPrefill.chunks(self, waiting, room)
        if not chunks:
            return chunks
        sequence, tokens, hit_tokens = chunks[-1]
        aligned = tokens - tokens % self.chunk_multiple
        if tokens in {sequence.unfilled_tokens - hit_tokens, aligned}:
            return chunks
        if aligned == 0 and (len(chunks) > 1 or room.decoding) and sequence is not room.partial:
            return chunks[:-1]
        return [*chunks[:-1], Chunk(sequence, aligned or tokens, hit_tokens)]


@dataclass(kw_only=True, slots=True)
class ShortestFirst(ChunkedPrefill):
    """ChunkedPrefill with the queue in order of prompt length; it needs no knowledge of the output."""

    def place(self, waiting: deque[Sequence], sequence: Sequence) -> None:
        """Behind every prompt that is not longer; a preempted sequence at the head stays there."""
        _insert(waiting, sequence, sequence.prompt_tokens, lambda other: other.prompt_tokens)


@dataclass(kw_only=True, slots=True)
class PriorityClasses(ChunkedPrefill):
    """ChunkedPrefill with the queue in order of priority, small before large (vLLM `--scheduling-policy priority`).

    The last of the lowest class is preempted first.
    """

    def place(self, waiting: deque[Sequence], sequence: Sequence) -> None:
        """Behind every request of the same or a more urgent class."""
        _insert(waiting, sequence, sequence.priority, lambda other: other.priority)

    def victim(self, batch: Batch) -> Sequence:
        """The least urgent; of several the last admitted."""
        return max(reversed(batch.sequences.values()), key=lambda sequence: sequence.priority)


def _insert(waiting: deque[Sequence], sequence: Sequence, key: int, key_of: Callable[[Sequence], int]) -> None:
    at = len(waiting)
    while at and key_of(waiting[at - 1]) > key and not waiting[at - 1].emitted:
        at -= 1
    waiting.insert(at, sequence)
