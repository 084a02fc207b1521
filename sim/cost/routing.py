"""Routing of tokens to experts: how many distinct experts a MoE layer loads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.cost.shape import Count, Seconds
from sim.theory import activated_experts

Shares = NDArray[np.float64]


@dataclass(kw_only=True)
class Routing(ABC):
    """How tokens choose experts.

    The draft tokens of a sequence stand next to each other and share experts; tokens of different sequences do not.
    With overlaps o_1, o_2, ... (the share of a token's experts that a token 1, 2, ... places before has too), a
    further token adds K (1 - o_1) prod_{d >= 2} (1 - o_d)^h experts: pairs do not fix the union, h says how much of
    what earlier tokens have in common they have in common with each other.

    Attributes:
        overlap: o_1, o_2, ... by token distance, the last for every larger one; empty: draft tokens are independent.
            Trained models of 8 experts in 128: 0.381, 0.329, 0.301, 0.299 (independent tokens: 0.0625).
        redundant_experts: copies of popular experts over all ranks of an expert-parallel group (EPLB), 0 for none.
        overlap_order: h in [0, 1]; 0.5 gives the 20.4 distinct experts reported for 4 neighbouring tokens there.

    Raises:
        ValueError: an overlap outside [0, 1), overlaps that grow with distance, or h outside [0, 1].
    """

    overlap: list[float] = field(default_factory=list)
    overlap_order: float = 0.5
    redundant_experts: int = 0

    def __post_init__(self) -> None:
        for i, share in enumerate(self.overlap):
            if not 0 <= share < 1:
                raise ValueError(f"routing.overlap[{i}] must lie in [0, 1), got {share}")
            if i and share > self.overlap[i - 1]:
                raise ValueError(f"routing.overlap must not grow with distance, got {list(self.overlap)}")
        if self.redundant_experts < 0:
            raise ValueError(f"routing.redundant_experts must be >= 0, got {self.redundant_experts}")
        if not 0 <= self.overlap_order <= 1:
            raise ValueError(f"routing.overlap_order must lie in [0, 1], got {self.overlap_order}")

    @abstractmethod
    def of_independent(self, experts: int, per_token: int, tokens: Count) -> Seconds:
        """Expected distinct experts of `tokens` tokens that choose independently."""

    @abstractmethod
    def shares(self, experts: int, per_token: int) -> Shares:
        """Probability that a token chooses each expert, shape (experts,); they sum to `per_token`."""

    def distinct(self, experts: int, per_token: int, sequences: Count, width: Count, prefill_tokens: Count) -> Seconds:
        """Expected distinct experts of one layer, between 0 and `experts`, growing in every count.

        Args:
            experts: E, routed experts of the layer.
            per_token: K, experts per token.
            sequences: decoding sequences, each with `width` neighbouring query tokens that may share experts.
            width: query tokens per sequence.
            prefill_tokens: tokens that share nothing: prompts, padding of a CUDA graph.
        """
        tokens = sequences * self.independent_width(experts, per_token, width) + prefill_tokens
        return self.of_independent(experts, per_token, tokens)

    def independent_width(self, experts: int, per_token: int, width: Count) -> Count:
        """Independent tokens that hit as many experts as `width` neighbouring ones of one sequence."""
        if not self.overlap or experts == per_token:
            return width
        most = max(2, int(np.ceil(np.max(width))))
        equivalent = _equivalent_widths(tuple(self.overlap), self.overlap_order, experts, per_token, most)
        return np.interp(width, np.arange(most + 1), equivalent)


@dataclass(kw_only=True)
class Uniform(Routing):
    """Every token draws its experts uniformly: eq. 8 of MoESD, N(t) = E (1 - ((E - K) / E)^t)."""

    def of_independent(self, experts: int, per_token: int, tokens: Count) -> Seconds:
        """Eq. 8."""
        hit: Seconds = activated_experts(tokens, experts, per_token)
        return hit

    def shares(self, experts: int, per_token: int) -> Shares:
        """K / E each."""
        return np.full(experts, per_token / experts)


@dataclass(kw_only=True)
class Skewed(Routing):
    """Experts differ in popularity; tokens choose independently, N(t) = sum over experts of 1 - (1 - p)^t."""

    @abstractmethod
    def popularity(self, experts: int) -> Shares:
        """Relative popularity of the experts, positive, shape (experts,)."""

    def of_independent(self, experts: int, per_token: int, tokens: Count) -> Seconds:
        """Experts of one probability are counted together."""
        shares, counts = np.unique(self.shares(experts, per_token), return_counts=True)
        missed = (1.0 - shares) ** np.asarray(tokens, dtype=np.float64)[..., None]
        hit: Seconds = ((1.0 - missed) * counts).sum(axis=-1)[()]
        return hit

    def shares(self, experts: int, per_token: int) -> Shares:
        """p = 1 - exp(-l x popularity), with l such that they sum to K: draws without replacement, to first order."""
        weights = self.popularity(experts)
        return _inclusion(tuple((weights / weights.sum()).tolist()), per_token)


@dataclass(kw_only=True)
class PowerLaw(Skewed):
    """The i-th most popular expert has popularity i^-exponent.

    Attributes:
        exponent: 0 is uniform; benchmarks of kernels use 1.01 and 1.2.
    """

    exponent: float

    def __post_init__(self) -> None:
        Routing.__post_init__(self)
        if not 0 <= self.exponent <= 4:
            raise ValueError(f"routing.exponent must lie in [0, 4], got {self.exponent}")

    def popularity(self, experts: int) -> Shares:
        """i ** -exponent."""
        return np.arange(1, experts + 1, dtype=np.float64) ** -self.exponent


@dataclass(kw_only=True)
class TrainedGate(Skewed):
    """A gate as training leaves it: log popularity = spread z - tail min(z, 0)^2 over the quantiles z of a normal.

    The defaults fit a trained gate of Qwen3-30B-A3B (128 experts, 8 per token): 47.6 distinct experts at 8 tokens,
    0.87 of the uniform 111.8 at 32, 120.6 at 128; they give 47.9, 97.3 and 120.9.

    Attributes:
        spread: how much popular experts differ.
        tail: how rarely the least popular ones are chosen.
    """

    spread: float = 0.55
    tail: float = 0.45

    def __post_init__(self) -> None:
        Routing.__post_init__(self)
        if not 0 < self.spread <= 3:
            raise ValueError(f"routing.spread must lie in (0, 3], got {self.spread}; for none take routing=uniform")
        if not 0 <= self.tail <= 3:
            raise ValueError(f"routing.tail must lie in [0, 3], got {self.tail}")

    def popularity(self, experts: int) -> Shares:
        """As above, at the middle quantiles."""
        from scipy.special import ndtri

        z = ndtri((np.arange(experts) + 0.5) / experts)
        popularity: Shares = np.exp(self.spread * z - self.tail * np.minimum(z, 0.0) ** 2)
        return popularity


@dataclass(kw_only=True)
class Histogram(Skewed):
    """Popularity as counted on a real gate.

    Attributes:
        counts: tokens that chose each expert, one entry per expert.
    """

    counts: list[float]

    def __post_init__(self) -> None:
        Routing.__post_init__(self)
        if not self.counts or min(self.counts) < 0 or sum(self.counts) <= 0:
            raise ValueError("routing.counts must be >= 0 and not all 0, one entry per expert")

    def popularity(self, experts: int) -> Shares:
        """The counts; an expert that was never chosen counts as a tenth of a token.

        Raises:
            ValueError: there are more or fewer than the layer has experts.
        """
        if len(self.counts) != experts:
            raise ValueError(f"routing.counts must have {experts} entries, one per expert, got {len(self.counts)}")
        return np.maximum(np.asarray(self.counts, dtype=np.float64), 0.1)


@lru_cache(maxsize=256)
def _equivalent_widths(
    overlap: tuple[float, ...], order: float, experts: int, per_token: int, most: int
) -> NDArray[np.float64]:
    """Independent tokens with the union of 0, 1, ..., most neighbouring ones, by eq. 8 turned round."""
    chance = per_token / experts
    union = np.zeros(most + 1)
    fresh = 1.0
    for width in range(1, most + 1):
        if width > 1:
            shared = max(chance, overlap[min(width - 2, len(overlap) - 1)])
            fresh *= (1.0 - shared) ** (1.0 if width == 2 else order)
        union[width] = union[width - 1] + per_token * min(fresh, 1.0 - union[width - 1] / experts)
    covered = np.minimum(union / experts, 1.0 - 1e-12)
    widths: NDArray[np.float64] = np.log1p(-covered) / np.log1p(-chance)
    return widths


@lru_cache(maxsize=64)
def _inclusion(popularity: tuple[float, ...], per_token: int) -> Shares:
    """Probabilities 1 - exp(-l w) that sum to `per_token`."""
    weights = np.asarray(popularity)
    if per_token >= len(weights):
        return np.ones(len(weights))
    low, high = 0.0, 1.0
    while (-np.expm1(-high * weights)).sum() < per_token:
        high *= 2.0
    for _ in range(100):
        middle = (low + high) / 2
        if (-np.expm1(-middle * weights)).sum() < per_token:
            low = middle
        else:
            high = middle
    shares: Shares = -np.expm1(-high * weights)
    return shares
