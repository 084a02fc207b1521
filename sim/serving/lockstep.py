"""Ranks in lockstep: how far the block of each has come, and what the group's own steps are.

Every rank of a group has scheduler, queue and pool of its own and plans blocks of its own; but a step lasts as long as
the slowest rank's, so only the group knows when steps end.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from sim.cost.lockstep import RankLoad
from sim.serving.batch import Batch
from sim.serving.block import Block, Pace
from sim.serving.paths import Paths
from sim.serving.setup import RankSetup
from sim.serving.verification import Verification


class Timeline:
    """The steps of a group.

    Attributes:
        start: when the steps under way began, tick.
        ends: when each of them ends.
        step: how many steps ended before them.

    Args:
        keep_steps: remember the ticks of every step.
    """

    def __init__(self, *, keep_steps: bool) -> None:
        self.start = 0
        self.ends: list[int] = []
        self.step = 0
        self._ticks = array("q") if keep_steps else None

    def over_at(self, time: int) -> tuple[int, int]:
        """How many of the steps under way are over at the first end at or after tick `time`, and that end."""
        steps = bisect_left(self.ends, time) + 1
        return steps, self.ends[steps - 1]

    def over_before(self, time: int) -> tuple[int, int]:
        """How many of the steps under way ended before tick `time`, and when the last of them did."""
        steps = bisect_left(self.ends, time)
        return steps, self.ends[steps - 1] if steps else self.start

    def advance(self, steps: int) -> None:
        """The first `steps` of the steps under way are over."""
        if self._ticks is not None:
            self._ticks.extend(np.diff([self.start, *self.ends[:steps]]).tolist())
        if steps:
            self.start = self.ends[steps - 1]
        self.step += steps
        del self.ends[:steps]

    def ticks(self, step: int, steps: int) -> NDArray[np.int64]:
        """Ticks of `steps` steps from `step` on, all of them over."""
        assert self._ticks is not None
        return np.array(self._ticks[step : step + steps], dtype=np.int64)


class UntimedPace(Pace):
    """The pace of a rank whose steps somebody else times. While a block is planned nobody knows: no time passes."""

    def at(self, step: int) -> int:
        raise NotImplementedError("somebody else times these steps")

    def elapsed(self, step: int, steps: int) -> int:
        return 0

    def each(self, step: int, context: NDArray[np.int64]) -> NDArray[np.int64]:
        raise NotImplementedError("somebody else times these steps")


class LockstepPace(UntimedPace):
    """The pace of one rank, which is the group's.

    Attributes:
        began: the group's step at which its block began.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.began = 0

    def each(self, step: int, context: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._timeline.ticks(self.began, len(context))

    def first_end(self, step: int, block: Block, time: int) -> tuple[int, int]:
        steps, end = self._timeline.over_at(time)
        return self.done + steps, end

    @property
    def done(self) -> int:
        """Steps of the rank's block that are over."""
        return self._timeline.step - self.began


class UntimedRounds(Verification):
    """The rounds of a rank whose steps somebody else times."""

    def __init__(self, setup: RankSetup, paths: Paths, pace: Pace | None = None) -> None:
        Verification.__init__(self, setup, paths)
        self._pace = pace or UntimedPace()

    def pace(self, batch: Batch) -> Pace:
        """Somebody else's."""
        return self._pace

    def prefill_ticks(self, batch: Batch, decoding: int, moments: tuple[int, int, int, int, int]) -> int:
        """Somebody else will know."""
        return 0


class LockstepRounds(UntimedRounds):
    """The rounds of a rank whose steps a group times.

    Attributes:
        now: the pace of its block under way.
    """

    def __init__(self, setup: RankSetup, paths: Paths, timeline: Timeline) -> None:
        self.now = LockstepPace(timeline)
        UntimedRounds.__init__(self, setup, paths, self.now)

    def load(self, batch: Batch, block: Block, done: int) -> RankLoad:
        """What the rank does in the step of `block` after `done` of them."""
        wide: tuple[int, ...] = ()
        if self._ragged and block.decoding:
            wide = batch.ledger.at_least(batch.step + done)
        return RankLoad(block.decoding, block.drafts, wide, block.moments)
