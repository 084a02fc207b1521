"""Distinct experts and the busiest rank against drawn routing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sim.cost.placement import busiest_rank
from sim.cost.routing import Histogram, PowerLaw, TrainedGate, Uniform

KINDS = {
    "uniform": Uniform(),
    "power law": PowerLaw(exponent=1.2),
    "trained": TrainedGate(),
    "histogram": Histogram(counts=[float(1 + i % 7) for i in range(128)]),
}
PUBLISHED = [0.381, 0.329, 0.301, 0.299]


def drawn(routing, tokens: int, experts: int, per_token: int, samples: int = 400) -> np.ndarray:
    """Choices by Gumbel top-k over the popularity: samples x tokens x per_token."""
    rng = np.random.default_rng(1)
    rates = -np.log1p(-np.minimum(routing.shares(experts, per_token), 1 - 1e-9))
    noise = rng.exponential(size=(samples, tokens, experts)) / rates
    return np.argsort(noise, axis=2)[:, :, :per_token]


@pytest.mark.parametrize("routing", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("tokens", [1, 4, 16, 64])
def test_distinct_experts_agree_with_a_draw(routing, tokens):
    chosen = drawn(routing, tokens, 128, 8)
    counted = np.mean([len(np.unique(sample)) for sample in chosen])
    assert float(routing.distinct(128, 8, tokens, 1, 0)) == pytest.approx(counted, rel=0.025)


@pytest.mark.parametrize("routing", KINDS.values(), ids=KINDS)
def test_shares_sum_to_k_and_n_grows_to_e(routing):
    assert routing.shares(128, 8).sum() == pytest.approx(8, rel=1e-6)
    counts = np.asarray(routing.distinct(128, 8, np.arange(1, 4000), 1, 0))
    assert counts[0] == pytest.approx(8, rel=1e-6)
    assert (np.diff(counts) >= -1e-9).all()
    assert counts.max() <= 128


def test_a_trained_gate_hits_what_was_counted():
    """Qwen3-30B-A3B: 47.6 experts at 8 tokens, 0.87 of uniform at 32, 120.6 at 128 (fitted on these three)."""
    found = TrainedGate().distinct(128, 8, np.array([8, 32, 128]), 1, 0)
    np.testing.assert_allclose(found, [47.6, 0.87 * 111.8, 120.6], rtol=0.01)


def test_neighbouring_tokens_share_experts_as_published():
    """4 neighbouring tokens hit 20.4 of 128 experts; a pair shares 38.1 % exactly; without overlap they hit 29.1."""
    overlapping = Uniform(overlap=PUBLISHED)
    assert float(overlapping.distinct(128, 8, 1, 4, 0)) == pytest.approx(20.4, rel=0.005)
    assert float(overlapping.distinct(128, 8, 1, 2, 0)) == pytest.approx(8 + 8 * (1 - 0.381), rel=1e-6)
    assert float(Uniform().distinct(128, 8, 1, 4, 0)) == pytest.approx(29.1, rel=0.005)


def test_overlap_never_adds_experts_and_fades_in_a_crowd():
    independent, overlapping = Uniform(), Uniform(overlap=PUBLISHED)
    for sequences in (1, 4, 64):
        for width in (1, 2, 4, 8):
            few = float(overlapping.distinct(128, 8, sequences, width, 0))
            many = float(independent.distinct(128, 8, sequences, width, 0))
            assert few <= many * (1 + 1e-9)
    assert float(overlapping.distinct(128, 8, 500, 4, 0)) == pytest.approx(128, rel=1e-3)


@pytest.mark.parametrize("routing", [KINDS["uniform"], KINDS["power law"]], ids=["uniform", "power law"])
@pytest.mark.parametrize("ranks", [4, 8])
@pytest.mark.parametrize("tokens", [4, 32, 256])
def test_the_busiest_rank_agrees_with_a_draw(routing, ranks, tokens):
    """Experts lie on the ranks in an order that knows nothing of their popularity: that of the code under test."""
    order = np.random.default_rng(0).permutation(128)
    place = np.argsort(order)
    chosen = drawn(routing, tokens, 128, 8, samples=200)
    by_popularity = np.argsort(np.argsort(-routing.shares(128, 8), kind="stable"))
    rank_of = place[by_popularity] * ranks // 128 if len(set(routing.shares(128, 8))) > 1 else place * ranks // 128
    rows = np.mean([np.bincount(rank_of[sample].ravel(), minlength=ranks).max() for sample in chosen])
    _, expected = busiest_rank(routing, 128, 8, ranks, tokens)
    assert float(expected) == pytest.approx(rows, rel=0.1)


def test_redundant_experts_level_the_ranks():
    plain = busiest_rank(PowerLaw(exponent=1.2), 128, 8, 8, 4096)[1]
    levelled = busiest_rank(PowerLaw(exponent=1.2, redundant_experts=16), 128, 8, 8, 4096)[1]
    assert 4096 <= float(levelled) < 1.1 * 4096 < float(plain)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(overlap=[1.2]), "routing.overlap[0] must lie in [0, 1), got 1.2"),
        (lambda: Uniform(overlap=[0.2, 0.3]), "routing.overlap must not grow with distance"),
        (lambda: PowerLaw(exponent=-1), "routing.exponent must lie in [0, 4], got -1"),
        (lambda: TrainedGate(spread=0), "for none take routing=uniform"),
        (lambda: Histogram(counts=[]), "routing.counts must be >= 0 and not all 0"),
        (lambda: Histogram(counts=[1.0]).distinct(8, 2, 1, 1, 0), "routing.counts must have 8 entries"),
        (lambda: Uniform(redundant_experts=-1), "routing.redundant_experts must be >= 0"),
    ],
)
def test_bad_routing_is_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
