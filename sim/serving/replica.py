"""A replica as a process: plan, sleep until the block's end, commit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from sim.metrics.record import Recorder
from sim.serving.clock import PLAN, STEP_END, Environment, Event, Process, at, tick
from sim.serving.sequence import Sequence


class Home(Protocol):
    """Whom a replica tells."""

    def finished(self, number: int, requests: list[int]) -> None:
        """`requests` of replica `number` finished now."""

    def left(self, number: int, sequences: list[Sequence], emitted: list[int]) -> None:
        """`sequences` of replica `number`, whose clients gave up, leave it now, with `emitted` tokens out of each."""


class Planned(Protocol):
    """Coming steps of one plan, to tick `end`."""

    end: int


B = TypeVar("B", bound=Planned)


class Served(Protocol[B]):
    """What a replica puts on the clock; `ended` names requests that have finished, whoever reads it clears it."""

    ended: list[int]

    def receive(self, sequence: Sequence, block: B | None, now: int) -> None:
        """A request arrives; `block`, the one under way, is cut where it could be admitted next."""

    def plan(self, now: int) -> B | None:
        """The next block from tick `now` on, or None when there is nothing to run."""

    def commit(self, block: B) -> None:
        """The block is over."""


U = TypeVar("U", bound=Served[Any])


class Replica(ABC, Generic[U, B]):
    """What serves requests, on a clock.

    Attributes:
        rank: what plans and commits its blocks; another one after each failure.
        tokens: prompt tokens and tokens out of the requests it holds, at the start of the block under way; kept up
            only where asked for.

    Args:
        env: the clock.
        number: its place in the fleet.
        rank: at the start.
        recorder: that of the rank.
        settle: wait with each plan until everything that steps' ends set off at the same instant has happened.
        counts_tokens: keep up `tokens`.
    """

    def __init__(
        self, env: Environment, number: int, rank: U, recorder: Recorder, *, settle: bool, counts_tokens: bool
    ) -> None:
        self.rank = rank
        self.tokens = 0
        self._env = env
        self._number = number
        self._recorder = recorder
        self._settle = settle
        self._counts_tokens = counts_tokens
        self._leaving: list[Sequence] = []
        self._block: B | None = None
        self._alarm = Event(env)

    def run(self, home: Home) -> Process:
        """The process."""
        while True:
            block = self._block = self.rank.plan(tick(self._env))
            if block is None:
                self._alarm = Event(self._env)
                yield self._alarm
                continue
            self._alarm = at(self._env, block.end, STEP_END)
            yield self._alarm
            if self._block is not None:
                self._block = None
                self.rank.commit(block)
                if self._counts_tokens:
                    self.tokens += self._recorder.last_emitted
            if self._leaving:
                self._let_go(home)
            if self.rank.ended:
                ended, self.rank.ended = self.rank.ended, []
                home.finished(self._number, ended)
            if self._settle:
                yield at(self._env, tick(self._env), PLAN)

    def receive(self, sequence: Sequence) -> None:
        """A request arrives now."""
        now, block = tick(self._env), self._block
        end = block.end if block is not None else now
        if self._counts_tokens:
            self.tokens += sequence.prefill_tokens
        self.rank.receive(sequence, block, now)
        if block is None:
            self._wake()
        elif block.end != end:
            self._move_alarm(at(self._env, block.end, STEP_END))

    @abstractmethod
    def withdraw(self, sequence: Sequence) -> bool:
        """The client of `sequence` gives up now. Waiting, it is gone; else it leaves at the next end of a step.

        Returns whether it is gone.
        """

    @abstractmethod
    def die(self, successor: U) -> list[Sequence]:
        """The step under way is lost and all that is in memory; `successor` is the rank of the next life.

        Returns the requests it held, with the tokens they had out.
        """

    @abstractmethod
    def tokens_at(self, time: int) -> int:
        """Prompt tokens and tokens out of the requests it holds, after the steps that ended before tick `time`."""

    @abstractmethod
    def prefix_hit_at(self, time: int, sequence: Sequence) -> int:
        """Tokens of `sequence`, which is nowhere yet, whose KV it has after the steps that ended before tick `time`."""

    @abstractmethod
    def _let_go(self, home: Home) -> None:
        """Those whose clients gave up in the step that just ended; what it made of them nobody saw."""

    def _wake(self) -> None:
        if not self._alarm.triggered:
            self._move_alarm(at(self._env, tick(self._env), PLAN))

    def _move_alarm(self, alarm: Event) -> None:
        """The process waits for `alarm` instead; the old event comes to nothing."""
        assert self._alarm.callbacks is not None
        alarm.callbacks, self._alarm.callbacks = self._alarm.callbacks, []
        self._alarm = alarm
