"""A replica of one rank."""

from __future__ import annotations

from typing import Generic, TypeVar

from sim.metrics.record import NOT_YET
from sim.serving.block import Block
from sim.serving.clock import STEP_END, Event, at, tick
from sim.serving.interruption import boundary, over, settle
from sim.serving.rank import Rank
from sim.serving.removal import evacuate, remove
from sim.serving.replica import Home, Replica
from sim.serving.sequence import Sequence

R = TypeVar("R", bound=Rank)


class RankReplica(Replica[R, Block], Generic[R]):
    """A Replica of one rank, whose blocks can be looked into before they end."""

    def withdraw(self, sequence: Sequence) -> bool:
        """As in Replica."""
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

    def die(self, successor: R) -> list[Sequence]:
        """As in Replica."""
        now, block = tick(self._env), self._block
        if block is not None:
            settle(self.rank, block, now)
            self._block = None
            self._move_alarm(Event(self._env))
        held = evacuate(self.rank, block, self._recorder)
        self.rank, self.tokens, self._leaving = successor, 0, []
        return held

    def tokens_at(self, time: int) -> int:
        """As in Replica."""
        block, batch = self._block, self.rank.batch
        if block is None or block.chunks:
            return self.tokens
        steps, _ = over(self.rank, block, time)
        return self.tokens + batch.ledger.cached(batch.step + steps) - batch.ledger.cached(batch.step)

    def prefix_hit_at(self, time: int, sequence: Sequence) -> int:
        """As in Replica."""
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

    def _cut(self) -> None:
        """The block under way ends with the step under way."""
        block = self._block
        if block is None or block.steps == 1:
            return
        steps, end = boundary(self.rank, block, tick(self._env))
        if steps < block.steps:
            block.steps, block.end = steps, end
            self._move_alarm(at(self._env, end, STEP_END))
