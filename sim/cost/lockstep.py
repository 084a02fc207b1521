"""Steps that several attention ranks take together: what each does, and how long it takes in ticks over its context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.cost.lines import Lines
from sim.cost.shape import Moments

Contexts = NDArray[np.int64]


class RankLoad(NamedTuple):
    """What one rank does in a step, its cached tokens apart.

    Attributes:
        sequences: decoding sequences.
        drafts: the draft length in force.
        at_least: sequences that verify 1, 2, ... drafts or more, where they differ; empty: all verify `drafts`.
        moments: of its prefill.
    """

    sequences: int = 0
    drafts: int = 0
    at_least: tuple[int, ...] = ()
    moments: Moments = (0, 0, 0, 0, 0)

    @property
    def busy(self) -> bool:
        """Whether it has anything to do; otherwise it runs a dummy pass of one token, as vLLM does."""
        return self.sequences > 0 or self.moments[0] > 0


IDLE = RankLoad()


class Pass(NamedTuple):
    """`times` passes of one model: each its GPU time, or the time to launch it if longer.

    GPU time is `fixed` plus `lines` at `share` / `whole` of the rank's cached tokens and `more` tokens.
    """

    times: int
    fixed: int
    launch: int
    lines: Lines | None
    share: int = 1
    whole: int = 1
    more: int = 0

    def at(self, context: int) -> int:
        """Ticks with so many cached tokens."""
        gpu = self.fixed
        if self.lines is not None:
            gpu += self.lines.at(context * self.share // self.whole + self.more)
        return self.times * max(gpu, self.launch)

    def over(self, context: Contexts) -> Contexts:
        """`at` of every entry."""
        if self.lines is None:
            return np.full(len(context), self.at(0))
        gpu = self.fixed + self.lines.durations(context * self.share // self.whole + self.more)
        ticks: Contexts = self.times * np.maximum(gpu, self.launch)
        return ticks


class RankTime(NamedTuple):
    """The step of one rank: its passes, and the `rest` that no context changes."""

    rest: int
    passes: list[Pass]

    def at(self, context: int) -> int:
        """Ticks with so many cached tokens."""
        total = self.rest
        for one in self.passes:
            total += one.at(context)
        return total

    def over(self, context: Contexts) -> Contexts:
        """`at` of every entry."""
        total = np.full(len(context), self.rest, dtype=np.int64)
        for one in self.passes:
            total += one.over(context)
        return total
