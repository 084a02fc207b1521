"""What the blocks of a run add up to, taken part by part: a long run never needs all its blocks at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.cost.lines import TICKS_PER_S

Blocks = Mapping[str, NDArray[np.int64]]
Column = NDArray[np.float64]


@dataclass(slots=True)
class BlockTotals:
    """Sums over blocks.

    Attributes:
        busy_s: rank-seconds in blocks.
        steps: how many.
        kv_blocks_peak: most KV blocks needed in any.
        last_end: tick at which the last of them ends.
        phases: phase -> seconds.
        experts_s: distinct experts per MoE layer, over time.
        decode_s: rank-seconds of the ranks that decode; over these, `sequences_s` and `waiting_s`.
        sequences_s, waiting_s: sequences that decode and requests that wait, over time.
    """

    busy_s: float = 0.0
    steps: int = 0
    kv_blocks_peak: int = 0
    last_end: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    experts_s: float = 0.0
    decode_s: float = 0.0
    sequences_s: float = 0.0
    waiting_s: float = 0.0

    def add(self, blocks: Blocks, phases: Mapping[str, Column], experts: Column, decodes: NDArray[np.bool_]) -> None:
        """More blocks.

        Args:
            blocks: their columns.
            phases: seconds of each by phase.
            experts: distinct experts per MoE layer in each.
            decodes: whether its rank decodes at all.
        """
        seconds = (blocks["end"] - blocks["start"]) / TICKS_PER_S
        decode_s = seconds * decodes
        self.busy_s += float(seconds.sum())
        self.steps += int(blocks["steps"].sum())
        self.kv_blocks_peak = max(self.kv_blocks_peak, int(blocks["kv_blocks"].max(initial=0)))
        self.last_end = max(self.last_end, int(blocks["end"].max(initial=0)))
        for name, column in phases.items():
            self.phases[name] = self.phases.get(name, 0.0) + float(column.sum())
        self.experts_s += float(experts @ seconds)
        self.decode_s += float(decode_s.sum())
        self.sequences_s += float(blocks["sequences"] @ decode_s)
        self.waiting_s += float(blocks["waiting"] @ decode_s)

    def mean(self, over_time: float) -> float:
        """A sum over the ranks that decode as a mean; 0 where none has run."""
        return over_time / self.decode_s if self.decode_s else 0.0
