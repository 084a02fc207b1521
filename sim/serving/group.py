"""A group of attention ranks (DP attention): each with requests of its own, all in lockstep."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.cost.lockstep import IDLE, RankLoad
from sim.metrics.record import Recorder
from sim.serving.block import Block
from sim.serving.lockstep import LockstepRounds, Timeline
from sim.serving.rank import Rank
from sim.serving.removal import evacuate
from sim.serving.sequence import Sequence

_WAITING_WEIGHT = 4
"""What a waiting request counts beside a running one when vLLM chooses a rank (`DPLBAsyncMPClient`)."""


class LockstepPrices(Protocol):
    """What a group asks a cost model."""

    def step(self, loads: Row[RankLoad], context: Row[int]) -> int:
        """Ticks of one step, with so many cached tokens on each rank."""

    def steps(self, loads: Row[RankLoad], context: Row[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Ticks of several steps that differ in cached tokens alone."""


@dataclass(slots=True)
class GroupBlock:
    """Coming steps of a group, from now to tick `end`, in which no rank changes its plan."""

    steps: int
    end: int


class RankGroup:
    """Ranks that step together.

    Attributes:
        ranks: by number.
        tokens: tokens emitted in blocks that are over.
        ended: requests that have finished; whoever reads it clears it.

    Args:
        rank: makes the rank of a number, whose rounds are timed by the group.
        rounds: makes the rounds of a rank.
        count: ranks.
        first: number of the first.
        prices: step times.
        recorder: that of the ranks.
    """

    def __init__(
        self,
        rank: Callable[[int, LockstepRounds], Rank],
        rounds: Callable[[Timeline], LockstepRounds],
        count: int,
        first: int,
        prices: LockstepPrices,
        recorder: Recorder,
    ) -> None:
        self.timeline = Timeline(keep_steps=recorder.keep_steps)
        self._rounds = [rounds(self.timeline) for _ in range(count)]
        self.ranks = [rank(first + i, own) for i, own in enumerate(self._rounds)]
        self.ended: list[int] = []
        self.tokens = 0
        self._prices = prices
        self._recorder = recorder
        self._open: list[Block | None] = [None] * count
        self._loads = [0] * count
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        """Requests it holds, waiting ones included."""
        return sum(self._loads)

    def receive(self, sequence: Sequence, block: GroupBlock | None, now: int) -> None:
        """A request arrives and goes to a rank; `block`, the one under way, is cut where that could admit it.

        vLLM's rule: the rank with the least 4 x waiting + running, the first on a tie. Its counts are up to 0.1 s old,
        but for what the front end has sent since; these are not.
        """
        at = self._least_loaded()
        self._place[sequence.request] = at
        self._loads[at] += 1
        if block is None:
            self._close(at)
        own = self._open[at]
        self.ranks[at].receive(sequence, own, now)
        if block is None:
            return
        if own is None:
            self._cut_group(block, self.timeline.over_at(now)[0])
        else:
            self._cut_group(block, own.steps - self._rounds[at].now.done)

    def plan(self, now: int) -> GroupBlock | None:
        """The next block from tick `now` on, or None when no rank has anything to run."""
        steps, step = 0, self.timeline.step
        for at, rank in enumerate(self.ranks):
            block = self._open[at]
            if block is None:
                self._rounds[at].now.began = step
                block = self._open[at] = rank.plan(now)
            if block is not None:
                left = block.steps - self._rounds[at].now.done
                steps = left if not steps or left < steps else steps
        if not steps:
            return None
        self._time(now, steps)
        return GroupBlock(len(self.timeline.ends), self.timeline.ends[-1])

    def commit(self, block: GroupBlock) -> None:
        """The block is over."""
        self.timeline.advance(block.steps)
        for at, own in enumerate(self._open):
            if own is not None and self._rounds[at].now.done == own.steps:
                self._close(at)

    def place_of(self, request: int) -> int:
        """The rank of a request it holds."""
        return self._place[request]

    def forget(self, request: int) -> None:
        """`request` has left."""
        self._loads[self._place.pop(request)] -= 1

    def stop(self, at: int, block: GroupBlock, now: int) -> None:
        """Rank `at` makes a new plan after the step under way."""
        own = self._open[at]
        steps, _ = self.timeline.over_at(now)
        if own is not None:
            own.steps = min(own.steps, self._rounds[at].now.done + steps)
        self._cut_group(block, steps)

    def emitted_before(self, time: int) -> int:
        """Tokens emitted since the blocks under way began, in steps that ended before tick `time`."""
        over, _ = self.timeline.over_before(time)
        total = 0
        for own, rounds, rank in zip(self._open, self._rounds, self.ranks, strict=True):
            if own is not None and own.decoding and not own.chunks:
                ledger, step = rank.batch.ledger, rank.batch.step
                total += ledger.cached(step + rounds.now.done + over) - ledger.cached(step)
        return total

    def evacuated(self, time: int) -> list[Sequence]:
        """All that it holds when it dies at tick `time`, in order of number; the step under way is lost."""
        self.timeline.advance(self.timeline.over_before(time)[0])
        held = []
        for at, rank in enumerate(self.ranks):
            if self._open[at] is not None and self._rounds[at].now.done:
                self._close(at)
            held += evacuate(rank, self._open[at], self._recorder)
        return sorted(held, key=lambda sequence: sequence.request)

    def _least_loaded(self) -> int:
        scores = [
            load + (_WAITING_WEIGHT - 1) * len(rank.waiting) for load, rank in zip(self._loads, self.ranks, strict=True)
        ]
        return scores.index(min(scores))

    def _cut_group(self, block: GroupBlock, steps: int) -> None:
        if steps < block.steps:
            block.steps, block.end = steps, self.timeline.ends[steps - 1]
            del self.timeline.ends[steps:]

    def _close(self, at: int) -> None:
        """The block of a rank is over, as far as it has come."""
        block, rank = self._open[at], self.ranks[at]
        if block is None:
            return
        self._open[at] = None
        block.steps, block.end = self._rounds[at].now.done, self.timeline.start
        rank.commit(block)
        self.tokens += self._recorder.last_emitted
        for request in rank.ended:
            self.forget(request)
        self.ended += rank.ended
        rank.ended.clear()

    def _time(self, now: int, steps: int) -> None:
        """When each of the coming steps ends, while nobody's load changes."""
        loads, timeline = self._load_at(0), self.timeline
        timeline.start = now
        if steps == 1:
            timeline.ends = [now + self._prices.step(loads, [self._context(at, 0) for at in range(len(loads))])]
            return
        if any(load.at_least for load in loads):
            ends = []
            for i in range(steps):
                now += self._prices.step(self._load_at(i), [self._context(at, i) for at in range(len(loads))])
                ends.append(now)
            timeline.ends = ends
            return
        ticks = self._prices.steps(loads, [self._contexts(at, steps) for at in range(len(loads))])
        timeline.ends = (now + np.cumsum(ticks)).tolist()

    def _load_at(self, step: int) -> list[RankLoad]:
        """What every rank does `step` steps from now."""
        return [
            IDLE if block is None else rounds.load(rank.batch, block, rounds.now.done + step)
            for block, rounds, rank in zip(self._open, self._rounds, self.ranks, strict=True)
        ]

    def _context(self, at: int, step: int) -> int:
        block, batch = self._open[at], self.ranks[at].batch
        if block is None or not block.decoding:
            return 0
        return batch.ledger.cached(batch.step + self._rounds[at].now.done + step)

    def _contexts(self, at: int, steps: int) -> NDArray[np.int64]:
        block, batch = self._open[at], self.ranks[at].batch
        if block is None or not block.decoding:
            return np.zeros(steps, dtype=np.int64)
        return batch.ledger.contexts(batch.step + self._rounds[at].now.done, steps)
