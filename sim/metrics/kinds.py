"""Replicas of a run that are priced unlike those of its cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.cost.step import StepCost
from sim.metrics.summary import Column, block_phases

Blocks = dict[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class ReplicaKind:
    """Replicas number `first` to `end`, that one left out.

    Attributes:
        first, end: their numbers.
        cost_at: the price of their steps at a draft length.
        prefills: they only prefill.
    """

    first: int
    end: int
    cost_at: Callable[[int], StepCost]
    prefills: bool = False

    def has(self, blocks: Blocks) -> NDArray[np.bool_]:
        """Which of the blocks are theirs."""
        theirs: NDArray[np.bool_] = (blocks["replica"] >= self.first) & (blocks["replica"] < self.end)
        return theirs


def phases_by_kind(
    blocks: Blocks, cost_at: Callable[[int], StepCost], kinds: tuple[ReplicaKind, ...]
) -> dict[str, Column]:
    """`block_phases` with each block at the price of its kind, `cost_at` where it has none of its own."""
    if not kinds:
        return block_phases(blocks, cost_at)
    rest = np.ones(len(blocks["replica"]), np.bool_)
    parts = []
    for kind in kinds:
        parts.append((kind.has(blocks), kind.cost_at))
        rest &= ~parts[-1][0]
    phases: dict[str, Column] = {}
    for chosen, price in (*parts, (rest, cost_at)):
        own = {name: column[chosen] for name, column in blocks.items()}
        for name, seconds in block_phases(own, price).items():
            phases.setdefault(name, np.zeros(len(rest)))[chosen] = seconds
    return phases
