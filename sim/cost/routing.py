"""Routing of tokens to experts: how many distinct experts a MoE layer loads, and how uneven the ranks are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from sim.cost.shape import Count, Seconds
from sim.cost.work import Amount
from sim.theory import activated_experts


@dataclass(kw_only=True)
class Routing(ABC):
    """How tokens choose experts."""

    @abstractmethod
    def distinct(self, experts: int, per_token: int, sequences: Count, width: Count, prefill_tokens: Count) -> Seconds:
        """Expected distinct experts of one layer, between 0 and `experts`, growing in every count.

        Args:
            experts: E, routed experts of the layer.
            per_token: K, experts per token.
            sequences: decoding sequences, each with `width` neighbouring query tokens that may share experts.
            width: query tokens per sequence.
            prefill_tokens: tokens that share nothing: prompts, padding of a CUDA graph.
        """


@dataclass(kw_only=True)
class Uniform(Routing):
    """Every token draws its experts uniformly and independently: eq. 8 of MoESD, N(t) = E (1 - ((E - K) / E)^t)."""

    def distinct(self, experts: int, per_token: int, sequences: Count, width: Count, prefill_tokens: Count) -> Seconds:
        hit: Seconds = activated_experts(sequences * width + prefill_tokens, experts, per_token)
        return hit


def busiest_rank_experts(distinct: Amount, experts: int, ranks: int) -> Amount:
    """Expected distinct experts on the busiest of `ranks` expert-parallel ranks, `experts / ranks` on each.

    The ranks' counts are taken as independent binomials; the largest of n such is about sqrt(2 ln n) deviations above
    the mean, and never above what a rank holds.
    """
    held = experts / ranks
    share = distinct / experts
    deviation = np.sqrt(held * share * (1.0 - share))
    largest = held * share + math.sqrt(2.0 * math.log(ranks)) * deviation
    return np.maximum(np.minimum(largest, held), np.minimum(distinct, 1.0))


def busiest_rank_rows(rows: Amount, ranks: int) -> Amount:
    """Expected (token, expert) rows on the busiest of `ranks` ranks, with the same approximation; at most all rows."""
    mean = rows / ranks
    deviation = np.sqrt(mean * (1.0 - 1.0 / ranks))
    return np.minimum(rows, mean + math.sqrt(2.0 * math.log(ranks)) * deviation)
