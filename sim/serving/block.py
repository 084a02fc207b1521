"""A block of steps: the part of a rank's future that one plan covers, and when each of its steps ends."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from sim.cost.lines import Lines
from sim.serving.ledger import Ledger
from sim.serving.scheduler import Chunk


@dataclass(slots=True)
class Block:
    """`steps` coming steps of one plan, from tick `start` to `end`; with prefill there is one step.

    Attributes:
        decoding: sequences that decode in it.
        chunks: what is prefilled.
        moments: chunks, new tokens, history tokens, pairs and completed prompts, as in `StepShape`.
        waiting: requests left in the queue.
    """

    start: int
    end: int
    steps: int
    decoding: int
    chunks: list[Chunk]
    moments: tuple[int, int, int, int, int]
    waiting: int


def elapsed(lines: Lines, ledger: Ledger, step: int, steps: int) -> int:
    """Ticks of `steps` steps from `step` on, in which nobody joins or leaves."""
    ticks, last = 0, ledger.cached(step + steps - 1)
    while True:
        cell = bisect_right(lines.bounds, ledger.cached(step))
        if last < lines.bounds[cell]:
            return ticks + steps * lines.intercept[cell] + lines.slope[cell] * ledger.total(step, steps)
        inside = ledger.steps_below(step, steps, lines.bounds[cell])
        ticks += inside * lines.intercept[cell] + lines.slope[cell] * ledger.total(step, inside)
        step, steps = step + inside, steps - inside


def first_end(lines: Lines, ledger: Ledger, step: int, block: Block, at: int) -> tuple[int, int]:
    """How many steps of `block` have ended at its first boundary at or after tick `at`, and that boundary.

    Steps of a block last nearly the same, so a guess is at most a few boundaries off.
    """
    steps = max(1, min(block.steps, -(-(at - block.start) * block.steps // (block.end - block.start))))
    end = block.start + elapsed(lines, ledger, step, steps)
    while end < at:
        end += lines.at(ledger.cached(step + steps))
        steps += 1
    while steps > 1:
        before = end - lines.at(ledger.cached(step + steps - 1))
        if before < at:
            break
        steps, end = steps - 1, before
    return steps, end
