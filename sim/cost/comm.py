"""Collectives: all-reduce after each row-cut matrix, all-gather of the logits, exchange of the experts' tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.constants import AllReduce
from sim.cost.shape import Seconds
from sim.cost.work import Amount
from sim.hardware import Link


@dataclass(frozen=True, slots=True)
class Collectives:
    """Collectives over `ranks` GPUs joined by `link`, at the measured efficiency.

    Between measured GPU counts, log2 of the count interpolates; beyond them the nearest holds. Over a kind of link that
    was not measured, the hops of a ring, 2 (n - 1) of them, come on top of the measured latency.
    """

    constants: AllReduce
    link: Link
    ranks: int

    @property
    def latency_s(self) -> float:
        """Seconds of an all-reduce of a tiny message."""
        hops = 0 if self.link.kind == self.constants.link_kind else 2 * (self.ranks - 1)
        return self._at_ranks(self.constants.latency_s) + hops * self.link.latency_s

    @property
    def bus_bytes_per_s(self) -> float:
        """Bus bandwidth: what a link carries, 2 (n - 1) / n bytes per byte reduced."""
        return self._at_ranks(self.constants.link_efficiency) * self.link.bandwidth_bytes_per_s

    def all_reduce(self, message_bytes: Seconds) -> Seconds:
        """Seconds to sum `message_bytes` over the ranks; 0 for one rank or an empty message."""
        return self._seconds(message_bytes, 2.0)

    def all_gather(self, message_bytes: Seconds) -> Seconds:
        """Seconds until every rank has the whole `message_bytes`, half the traffic of an all-reduce."""
        return self._seconds(message_bytes, 1.0)

    def reduce_scatter(self, message_bytes: Seconds) -> Seconds:
        """Seconds until every rank has its part of the sum of `message_bytes`, the first half of an all-reduce."""
        return self._seconds(message_bytes, 1.0)

    def _seconds(self, message_bytes: Amount, passes: float) -> Seconds:
        if self.ranks == 1:
            return 0.0 * np.asarray(message_bytes)
        carried = passes * (self.ranks - 1) / self.ranks * message_bytes
        seconds: Seconds = self.latency_s * np.greater(message_bytes, 0) + carried / self.bus_bytes_per_s
        return seconds

    def _at_ranks(self, by_count: dict[int, float]) -> float:
        counts = sorted(by_count)
        return float(np.interp(np.log2(self.ranks), np.log2(counts), [by_count[count] for count in counts]))
