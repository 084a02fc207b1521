"""The routed experts of one MoE layer on one rank: top-k, permutation, both grouped GEMMs and the reduction.

The router's GEMM and the shared expert are dense (`dense.py`). What cannot be left out is the number of distinct
experts for the routing at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sim.cost.efficiency import ExpertEfficiency
from sim.cost.placement import busiest_rank
from sim.cost.routing import Routing, Uniform
from sim.cost.shape import Count, Seconds
from sim.cost.work import Amount, GroupedGemm, Peaks, Work
from sim.layers import Ffn


@dataclass(frozen=True, slots=True)
class RankExperts:
    """One MoE layer as one rank computes it.

    Attributes:
        ffn: the layer.
        hidden: model width.
        weight_bytes: bytes per expert weight.
        tensor_parallel: ranks that cut every expert's width.
        expert_parallel: ranks that hold whole experts; the step waits for the busiest.
        skew: how unevenly tokens choose experts, 0 (even) to 1 (the benchmarks' power laws).
        routing: how tokens choose experts, for the busiest rank.
    """

    ffn: Ffn
    hidden: int
    weight_bytes: float
    tensor_parallel: int = 1
    expert_parallel: int = 1
    skew: float = 0.0
    routing: Routing = field(default_factory=Uniform)

    def grouped(self, distinct: Amount, tokens: Count) -> GroupedGemm:
        """What the rank computes.

        Args:
            distinct: distinct experts hit, over all ranks.
            tokens: tokens that enter the layer.
        """
        loaded, rows = self._share(distinct, tokens)
        width = self.ffn.expert_width / self.tensor_parallel
        absent = np.multiply(tokens, float(self.ffn.experts_per_token)) - rows
        return GroupedGemm(loaded, rows, self.hidden, width, self.ffn.matrices, self.weight_bytes, self.skew, absent)

    def work(self, distinct: Amount, tokens: Count) -> Work:
        """Weights of the distinct experts once, rows in and out of both GEMMs, 2 FLOPs per weight and row."""
        return self.grouped(distinct, tokens).work

    def seconds(self, distinct: Amount, tokens: Count, efficiency: ExpertEfficiency, peaks: Peaks) -> Seconds:
        """Seconds of the layer."""
        return efficiency.experts_s(self.grouped(distinct, tokens), peaks)

    def _share(self, distinct: Amount, tokens: Count) -> tuple[Amount, Amount]:
        """Distinct experts and (token, expert) rows of the rank, the busiest one under expert parallelism."""
        rows = np.multiply(tokens, float(self.ffn.experts_per_token))
        if self.expert_parallel == 1:
            return distinct, rows
        ffn = self.ffn
        loaded, most = busiest_rank(self.routing, ffn.experts, ffn.experts_per_token, self.expert_parallel, tokens)
        return np.minimum(loaded, distinct), most
