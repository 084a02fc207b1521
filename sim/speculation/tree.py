"""Trees of drafts: which nodes are verified, and how deep a round gets with them."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.speculation.acceptance.base import Acceptance, check_rates


def reachable_nodes(top_k: int, depth: int) -> int:
    """Nodes an EAGLE-2 tree of this depth chooses from: top_k children of the root, then of the best top_k nodes."""
    return min(depth, 1) * top_k + max(0, depth - 1) * top_k * top_k


def best_tree(rates: list[list[float]], nodes: int, depth: int) -> NDArray[np.float64]:
    """Probability that a round gets to each depth with the `nodes` most probable nodes down to `depth`.

    A node is reached with the product of the rates on its way from the root; at most one child of a node is
    accepted, so a depth is reached with the sum over its nodes (Sequoia, arXiv 2402.12374, section 3.1).

    Args:
        rates: rates[d][r] is the probability that the child of rank r, at depth d + 1, is accepted given its parent.
        nodes: drafts verified.
        depth: of the tree; depths beyond the rates are never reached.

    Returns:
        Shape (depth,).
    """
    reached = np.zeros(depth)
    heap: list[tuple[float, int, int, float]] = []

    def push(parent: float, level: int, rank: int) -> None:
        if level < min(depth, len(rates)) and rank < len(rates[level]):
            heappush(heap, (-parent * rates[level][rank], level, rank, parent))

    push(1.0, 0, 0)
    for _ in range(nodes):
        if not heap:
            break
        value, level, rank, parent = heappop(heap)
        reached[level] -= value
        push(parent, level, rank + 1)
        push(-value, level + 1, 0)
    return reached


@dataclass(kw_only=True, slots=True)
class RatePerRank(Acceptance):
    """Acceptance of a tree from the rates of its nodes: `rates[d][r]` for the child of rank r at depth d + 1.

    Attributes:
        rates: given that the parent was accepted; non-increasing in the rank, at most 1 together.
        nodes: drafts verified, the most probable ones; as in the drafter.
    """

    rates: list[list[float]]
    nodes: int

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"speculation.acceptance.nodes must be >= 1, got {self.nodes}")
        if not self.rates:
            raise ValueError("speculation.acceptance.rates must hold at least one depth, got none")
        for level, ranks in enumerate(self.rates):
            name = f"rates[{level}]"
            check_rates(name, ranks)
            if sum(ranks) > 1.0 + 1e-9 or any(b > a for a, b in pairwise(ranks)):
                raise ValueError(
                    f"speculation.acceptance.{name} must not increase and sum to at most 1, got {ranks}: "
                    "at most one child of a node is accepted"
                )

    def survival(self, depth: int) -> NDArray[np.float64]:
        """Of the best tree of this depth."""
        return best_tree(self.rates, self.nodes, depth)
