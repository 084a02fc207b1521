"""A request's life inside an engine, as far as scheduling needs it; the Recorder keeps its times."""

from __future__ import annotations

from typing import NamedTuple

from sim.metrics.record import Recorder
from sim.serving.paths import Path


class Sequence:
    """One request in a rank.

    Attributes:
        request: its index in the stream.
        prompt_tokens, output_tokens: of the request.
        emitted: output tokens out when it last waited (0 before its first admission).
        prefilled: tokens computed of `prefill_tokens` so far.
        path: its rounds, once it decodes.
        joined: step at which the path begins.
        seen: the first engine step whose planning knows of it.
        finished: its last token is out.
        blocks: ids of the KV blocks it holds, with prefix caching.
        priority: class of urgency, small before large.
    """

    __slots__ = (
        "blocks", "emitted", "finished", "joined", "output_tokens", "path", "prefilled", "priority", "prompt_tokens",
        "request", "seen",
    )  # fmt: skip

    def __init__(self, request: int, prompt_tokens: int, output_tokens: int, emitted: int = 0) -> None:
        self.request, self.prompt_tokens, self.output_tokens = request, prompt_tokens, output_tokens
        self.emitted = emitted
        self.prefilled = self.joined = self.seen = self.priority = 0
        self.path: Path | None = None
        self.finished = False
        self.blocks: list[int] = []

    @property
    def prefill_tokens(self) -> int:
        """Tokens to compute before it can decode: the prompt and, after a preemption, what was emitted."""
        return self.prompt_tokens + self.emitted

    @property
    def unfilled_tokens(self) -> int:
        """Tokens of the prefill still to compute."""
        return self.prompt_tokens + self.emitted - self.prefilled

    @property
    def ends(self) -> int:
        """Step before which the sequence has finished."""
        assert self.path is not None
        return self.joined + self.path.rounds

    def emitted_before(self, step: int) -> int:
        """Tokens out before `step`, one of its path's."""
        assert self.path is not None
        return self.path.cached(step - self.joined) + 1 - self.prompt_tokens

    def preempt(self, step: int) -> None:
        """Back to the queue before `step`: its KV is dropped and will be computed again."""
        if self.path is not None:
            self.emitted = self.emitted_before(step)
        self.path = None
        self.prefilled = 0

    def record_rounds(self, rounds: int, recorder: Recorder) -> None:
        """Write down `rounds` that it has run since it joined, and what they drafted and accepted."""
        if self.path is not None:
            recorder.rounds[self.request] += rounds
            recorder.accepted[self.request] += self.path.accepted(rounds)
            recorder.drafted[self.request] += self.path.drafted(rounds)


class Chunk(NamedTuple):
    """`tokens` more of a sequence's prefill, after `hit_tokens` that the prefix cache holds at its admission."""

    sequence: Sequence
    tokens: int
    hit_tokens: int = 0
