"""A block of steps looked into before it ends: which of its steps are over at a tick, and what they have done."""

from __future__ import annotations

from sim.serving.block import Block
from sim.serving.rank import Rank


def boundary(rank: Rank, block: Block, time: int) -> tuple[int, int]:
    """How many steps of `block`, under way on `rank`, are over at its first boundary at or after `time`; and when."""
    if block.steps == 1:
        return 1, block.end
    return rank.rounds.pace(rank.batch).first_end(rank.batch.step, block, time)


def over(rank: Rank, block: Block, time: int) -> tuple[int, int]:
    """How many steps of `block`, under way on `rank`, ended before tick `time`, and when the last of them did."""
    if block.steps == 1:
        return (1, block.end) if block.end < time else (0, block.start)
    pace, step = rank.rounds.pace(rank.batch), rank.batch.step
    steps, end = pace.first_end(step, block, time)
    return steps - 1, end - pace.at(step + steps - 1)


def settle(rank: Rank, block: Block, time: int) -> None:
    """Commit the steps of `block`, under way on `rank`, that ended before tick `time`; it goes on with the rest."""
    steps, end = over(rank, block, time)
    if not steps:
        return
    rest, whole_end = block.steps - steps, block.end
    block.steps, block.end = steps, end
    rank.commit(block)
    block.start, block.steps, block.end = end, rest, whole_end
    if rest and rank.pool.content is not None:
        rank.pool.evict(rank.pool.used(rank.batch, rank.partial, rank.steps), rank.steps)
