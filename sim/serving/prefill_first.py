"""Schedulers that do not cut prompts to what decoding leaves: prefill first, static and iteration-level batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from sim.serving.admission import Room, admit
from sim.serving.batch import Batch
from sim.serving.scheduler import Scheduler
from sim.serving.sequence import Chunk, Sequence


@dataclass(kw_only=True, slots=True)
class PrefillFirst(Scheduler):
    """vLLM V0 and TGI: whenever prompts can be admitted a step prefills them alone, and decoding pauses.

    A prompt above `max_batched_tokens` is cut, and its pieces come one step after the other.
    """

    @property
    def mixes(self) -> bool:
        """Never."""
        return False

    def check(self, width: int) -> None:
        """Decoding takes nothing of the budget; it must hold one round."""
        Scheduler.check(self, width)

    def chunks(self, waiting: Iterable[Sequence], room: Room) -> list[Chunk]:
        """The partial's next piece, then admissions in order of the queue, each only when its whole prompt fits."""
        budget = self.max_batched_tokens
        chunks: list[Chunk] = []
        if room.partial is not None:
            chunks.append(Chunk(room.partial, min(budget, room.partial.unfilled_tokens)))
            budget -= chunks[0].tokens
        return admit(waiting, room, chunks, budget, self.max_seqs, whole=True)


@dataclass(kw_only=True, slots=True)
class SglangPrefillFirst(PrefillFirst):
    """SGLang 0.5: prefill first, retraction of whoever has emitted least, admission that leaves room to grow.

    Mirrors `schedule_policy.py` and `schedule_batch.py`: a prompt is admitted when it fits beside `growth` of the
    tokens that the running sequences may still emit; when the pool runs dry the sequence with the fewest output tokens
    is retracted, of several the one with the longest prompt.

    Attributes:
        growth: share of the remaining outputs kept free at admission (`new_token_ratio`, 0.7 at the start in SGLang,
            which lowers it while nothing is retracted; here it stays).
    """

    growth: float = 0.3

    def __post_init__(self) -> None:
        Scheduler.__post_init__(self)
        if not 0.0 <= self.growth <= 1.0:
            raise ValueError(f"scheduler.growth must lie in [0, 1], got {self.growth}")

    def chunks(self, waiting: Iterable[Sequence], room: Room) -> list[Chunk]:
        """As PrefillFirst, in what the growth of the running sequences leaves free."""
        if room.decoding:
            room = room.keeping(int(self.growth * room.future_blocks))
        return PrefillFirst.chunks(self, waiting, room)

    def victim(self, batch: Batch) -> Sequence:
        """Fewest tokens out, then longest prompt, then last admitted."""
        return min(
            reversed(batch.sequences.values()),
            key=lambda sequence: (sequence.emitted_before(batch.step), -sequence.prompt_tokens),
        )


@dataclass(kw_only=True, slots=True)
class StaticBatch(PrefillFirst):
    """Requests are admitted only while nothing has been decoded; the batch runs until all of it has finished."""

    def chunks(self, waiting: Iterable[Sequence], room: Room) -> list[Chunk]:
        """Fills the batch before its first decode step, then admits nobody."""
        return PrefillFirst.chunks(self, () if room.decoded else waiting, room)

    def heeds_arrival(self, waiting: deque[Sequence], sequence: Sequence, decoding: int) -> bool:
        """Never: what is planned already decodes."""
        return False


@dataclass(kw_only=True, slots=True)
class IterationLevel(Scheduler):
    """Orca (OSDI 2022): batches change at every step; whole prompts join the decoding ones, uncut.

    A prompt waits until the budget holds all of it; one above the whole budget is cut to it.
    """

    def chunks(self, waiting: Iterable[Sequence], room: Room) -> list[Chunk]:
        """Prompts from the head of the queue, as long as each fits whole."""
        budget = self.max_batched_tokens - room.decode_tokens
        chunks: list[Chunk] = []
        if room.partial is not None:
            chunks.append(Chunk(room.partial, min(budget, room.partial.unfilled_tokens)))
            budget -= chunks[0].tokens
        admitted = admit(waiting, room, chunks, budget, self.max_seqs, whole=True)
        last = admitted[-1] if admitted else None
        cut = last is not None and last.tokens + last.hit_tokens < last.sequence.prefill_tokens
        if cut and last is not None and last.sequence is not room.partial and (len(admitted) > 1 or room.decoding):
            return admitted[:-1]
        return admitted
