"""A block of steps: the part of a rank's future that one plan covers, and when each of its steps ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from sim.cost.lines import Lines
from sim.cost.shape import Moments
from sim.serving.ledger import Ledger
from sim.serving.sequence import Chunk
from sim.serving.setup import Prices


class Block:
    """`steps` coming steps of one plan, from tick `start` to `end`; with prefill there is one step.

    Attributes:
        decoding: sequences that decode in it.
        drafts: draft tokens that each of them verifies (the most, where they differ).
        chunks: what is prefilled.
        moments: of the prefill.
        waiting: requests left in the queue.
    """

    __slots__ = ("chunks", "decoding", "drafts", "end", "moments", "start", "steps", "waiting")

    def __init__(
        self,
        start: int,
        end: int,
        steps: int,
        decoding: int,
        drafts: int,
        chunks: list[Chunk],
        moments: Moments,
        waiting: int,
    ) -> None:
        self.start, self.end, self.steps = start, end, steps
        self.decoding, self.drafts = decoding, drafts
        self.chunks, self.moments, self.waiting = chunks, moments, waiting


class Pace(ABC):
    """How long each step of a rank's future lasts, while nobody joins or leaves."""

    @abstractmethod
    def at(self, step: int) -> int:
        """Ticks of `step`."""

    @abstractmethod
    def elapsed(self, step: int, steps: int) -> int:
        """Ticks of `steps` steps from `step` on."""

    @abstractmethod
    def each(self, step: int, context: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ticks of every step from `step` on, one for each entry of `context`, the cached tokens before it."""

    def first_end(self, step: int, block: Block, time: int) -> tuple[int, int]:
        """How many steps of `block`, the next from `step` on, are over at its first boundary at or after tick `time`.

        And that boundary. Steps of a block last nearly the same, so a guess is at most a few boundaries off.
        """
        steps = max(1, min(block.steps, -(-(time - block.start) * block.steps // (block.end - block.start))))
        end = block.start + self.elapsed(step, steps)
        while end < time:
            end += self.at(step + steps)
            steps += 1
        while steps > 1:
            before = end - self.at(step + steps - 1)
            if before < time:
                break
            steps, end = steps - 1, before
        return steps, end


class SteadyPace(Pace):
    """Rounds of one width: lines over cells of context."""

    __slots__ = ("_ledger", "_lines")

    def __init__(self, lines: Lines, ledger: Ledger) -> None:
        self._lines, self._ledger = lines, ledger

    def at(self, step: int) -> int:
        return self._lines.at(self._ledger.cached(step))

    def elapsed(self, step: int, steps: int) -> int:
        """A difference of two sums per cell."""
        lines, ledger, ticks = self._lines, self._ledger, 0
        while True:
            first, last, total = ledger.span(step, steps)
            cell = bisect_right(lines.bounds, first)
            if last < lines.bounds[cell]:
                return ticks + steps * lines.intercept[cell] + lines.slope[cell] * total
            inside = ledger.steps_below(step, steps, lines.bounds[cell])
            ticks += inside * lines.intercept[cell] + lines.slope[cell] * ledger.total(step, inside)
            step, steps = step + inside, steps - inside

    def each(self, step: int, context: NDArray[np.int64]) -> NDArray[np.int64]:
        """Caches only grow, so the first and the last step tell whether all lie in one cell."""
        lines = self._lines
        cell = bisect_right(lines.bounds, int(context[0]))
        if context[-1] < lines.bounds[cell]:
            return lines.intercept[cell] + lines.slope[cell] * context
        return lines.durations(context)


class RaggedPace(Pace):
    """Rounds of different widths: step by step."""

    __slots__ = ("_ledger", "_prices", "_sequences")

    def __init__(self, prices: Prices, ledger: Ledger, sequences: int) -> None:
        self._prices, self._ledger, self._sequences = prices, ledger, sequences

    def at(self, step: int) -> int:
        return self._prices.ragged(self._sequences, self._ledger.at_least(step), self._ledger.cached(step))

    def elapsed(self, step: int, steps: int) -> int:
        return sum(self.at(step + i) for i in range(steps))

    def each(self, step: int, context: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([self.at(step + i) for i in range(len(context))])
