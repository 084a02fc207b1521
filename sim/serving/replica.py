"""A replica as a process: plan, sleep until the block's end, commit."""

from __future__ import annotations

from typing import Any, Protocol

from sim.metrics.record import NOT_YET, Recorder
from sim.serving.block import Block
from sim.serving.clock import PLAN, STEP_END, Environment, Event, Process, at
from sim.serving.interruption import boundary, over, settle
from sim.serving.rank import Rank
from sim.serving.removal import evacuate, remove
from sim.serving.sequence import Sequence


class Home(Protocol):
    """Whom a replica tells."""

    def finished(self, number: int, requests: list[int]) -> None:
        """`requests` of replica `number` finished now."""

    def left(self, number: int, sequences: list[Sequence], emitted: list[int]) -> None:
        """`sequences` of replica `number`, whose clients gave up, leave it now, with `emitted` tokens out of each."""


class Replica:
    """One rank on a clock.

    Attributes:
        rank: its rank; another one after each failure.
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
        self, env: Environment, number: int, rank: Rank, recorder: Recorder, *, settle: bool, counts_tokens: bool
    ) -> None:
        self.rank = rank
        self.tokens = 0
        self._env = env
        self._number = number
        self._recorder = recorder
        self._settle = settle
        self._counts_tokens = counts_tokens
        self._leaving: list[Sequence] = []
        self._block: Block | None = None
        self._alarm = Event(env)

    def run(self, home: Home) -> Process:
        """The process."""
        while True:
            block = self._block = self.rank.plan(int(self._env.now))
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
                yield at(self._env, int(self._env.now), PLAN)

    def receive(self, sequence: Sequence) -> None:
        """A request arrives now."""
        now, block = int(self._env.now), self._block
        end = block.end if block is not None else now
        if self._counts_tokens:
            self.tokens += sequence.prefill_tokens
        self.rank.receive(sequence, block, now)
        if block is None:
            self._wake()
        elif block.end != end:
            self._move_alarm(at(self._env, block.end, STEP_END))

    def withdraw(self, sequence: Sequence) -> bool:
        """The client of `sequence` gives up now. Waiting, it is gone; else it leaves at the next end of a step.

        Returns whether it is gone.
        """
        waiting = self.rank.waiting
        if sequence not in waiting:
            self._leaving.append(sequence)
            self._cut()
            return False
        waiting.remove(sequence)
        if waiting and self._block is None:
            self._wake()
        elif waiting:
            self._cut()
        return True

    def die(self, successor: Any) -> list[Sequence]:
        """The step under way is lost and all that is in memory; `successor` is the rank of the next life.

        Returns the requests it held, with the tokens they had out.
        """
        assert isinstance(successor, Rank)
        now, block = int(self._env.now), self._block
        if block is not None:
            settle(self.rank, block, now)
            self._block = None
            self._move_alarm(Event(self._env))
        held = evacuate(self.rank, block, self._recorder)
        self.rank, self.tokens, self._leaving = successor, 0, []
        return held

    def tokens_at(self, time: int) -> int:
        """Prompt tokens and tokens out of the requests it holds, after the steps that ended before tick `time`."""
        block, batch = self._block, self.rank.batch
        if block is None or block.chunks:
            return self.tokens
        steps, _ = over(self.rank, block, time)
        return self.tokens + batch.ledger.cached(batch.step + steps) - batch.ledger.cached(batch.step)

    def prefix_hit_at(self, time: int, sequence: Sequence) -> int:
        """Tokens of `sequence`, which is nowhere yet, whose KV it has after the steps that ended before tick `time`."""
        found, block = self.rank.pool.hit_tokens(sequence), self._block
        if not found or block is None or block.chunks:
            return found
        # What the steps of a block evict is known only once they are committed.
        before = self.rank.batch.step
        settle(self.rank, block, time)
        if self.rank.batch.step == before:
            return found
        if self._counts_tokens:
            self.tokens += self._recorder.last_emitted
        if not block.steps:
            self._block = None
        return self.rank.pool.hit_tokens(sequence)

    def _let_go(self, home: Home) -> None:
        """Those whose clients gave up in the step that just ended; what it made of them nobody saw."""
        leaving, self._leaving = self._leaving, []
        rank, recorder = self.rank, self._recorder
        emitted = [remove(rank, sequence, recorder) for sequence in leaving]
        for sequence in leaving:
            request = sequence.request
            if recorder.finish[request] != NOT_YET:
                rank.ended.remove(request)
                recorder.finish[request] = NOT_YET
            if recorder.first_token[request] >= recorder.cancelled[request]:
                recorder.first_token[request] = NOT_YET
        home.left(self._number, leaving, emitted)

    def _wake(self) -> None:
        if not self._alarm.triggered:
            self._move_alarm(at(self._env, int(self._env.now), PLAN))

    def _cut(self) -> None:
        """The block under way ends with the step under way."""
        block = self._block
        if block is None or block.steps == 1:
            return
        steps, end = boundary(self.rank, block, int(self._env.now))
        if steps < block.steps:
            block.steps, block.end = steps, end
            self._move_alarm(at(self._env, end, STEP_END))

    def _move_alarm(self, alarm: Event) -> None:
        """The process waits for `alarm` instead; the old event comes to nothing."""
        assert self._alarm.callbacks is not None
        alarm.callbacks, self._alarm.callbacks = self._alarm.callbacks, []
        self._alarm = alarm
