"""Schedulers: which prompts a step prefills. Decoding sequences all take part in every step that has them.

A scheduler is a value; the state it reads is the rank's. Adding one = one class, one line in `sim.options`, one
YAML in `conf/scheduler/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from sim.serving.admission import Room
from sim.serving.batch import Batch
from sim.serving.sequence import Chunk, Sequence


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
