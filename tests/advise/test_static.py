"""Prices and draft lengths before any queue is simulated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sim import simulate
from sim.advise.policy import TOLERANCE, advised_ranges, merged
from sim.advise.static import StaticBatches, mean_context_tokens, tokens_per_round, with_drafts
from sim.advise.surfaces import paying_ranges, surfaces
from sim.speculation.acceptance import BetaRate
from sim.speculation.ngram import NGram
from tests.advise.deployments import EAGLE3, H100, H200, served, with_sd

RATES = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.floats(1.0, 1.02))


@given(RATES)
def test_ranges_cover_every_batch_and_lose_next_to_nothing(rates):
    ranges = merged(rates)
    assert [row[0] for row in ranges] == [1, *(row[1] + 1 for row in ranges[:-1])]
    assert ranges[-1][1] == rates.shape[1]
    for first, last, drafts in ranges:
        columns = rates[:, first - 1 : last]
        assert (columns[drafts] >= (1 - TOLERANCE) * columns.max(axis=0)).all()


@given(RATES)
def test_no_fewer_ranges_would_do(rates):
    good = rates >= (1 - TOLERANCE) * rates.max(axis=0)
    least = [0] * (rates.shape[1] + 1)
    for last in range(1, rates.shape[1] + 1):
        least[last] = min(1 + least[first] for first in range(last) if good[:, first:last].all(axis=1).any())
    assert len(merged(rates)) == least[-1]


@pytest.mark.parametrize("drafter", [EAGLE3, NGram(match_rate=0.4)], ids=["eagle", "ngram"])
@pytest.mark.parametrize("acceptance", [0.6, BetaRate(mean=0.6, concentration=3.0)], ids=["constant", "beta"])
def test_tokens_per_round_are_those_of_the_simulation(drafter, acceptance):
    experiment = with_sd(served("llama31_8b", H100), drafter, acceptance, drafts=3)
    requests = experiment.workload.requests(0)
    for drafts, expected in enumerate(tokens_per_round(experiment, requests)[1:], 1):
        rounds = sum(simulate(with_drafts(experiment, drafts), requests).recorder.rounds)
        assert (requests.output_tokens - 1).sum() / rounds == pytest.approx(expected, rel=1e-12)


def test_a_round_breaks_even_at_its_break_even_length():
    experiment = with_sd(served("qwen3_30b_a3b", H200), EAGLE3, 0.7)
    static = StaticBatches.of(experiment, experiment.workload.requests(0))
    batches, contexts = np.array([1, 8, 64]), np.array([600, 600, 600])
    even = static.break_even(3, batches, contexts)
    assert (even > 1.0).all()
    for batch, length in zip(batches, even, strict=True):
        there = replace(static, emitted=(1.0, 1.0, 1.0, float(length)))
        assert there.speedup(3, batch, np.array(600)) == pytest.approx(1.0)


def test_nothing_accepted_pays_nowhere_and_drafts_nothing():
    experiment = with_sd(served("llama31_8b", H100), EAGLE3, 0.0)
    requests = experiment.workload.requests(0)
    static = StaticBatches.of(experiment, requests)
    assert advised_ranges(static, mean_context_tokens(requests), 48) == [[1, 48, 0]]
    assert not any(found.pays for found in paying_ranges(static, 500))


def test_surfaces_end_where_the_kv_pool_does():
    experiment = with_sd(served("llama31_8b", H100), EAGLE3, 0.7)
    requests = experiment.workload.requests(0)
    kv = simulate(experiment, requests).kv
    found = surfaces(StaticBatches.of(experiment, requests), kv, 500, acceptance_known=True)
    for context, row in zip(found.contexts, found.break_even[2], strict=True):
        for batch, length in zip(found.batches, row, strict=True):
            fits = batch * kv.blocks_for(context + 5) <= kv.blocks
            assert (length is not None) == fits
    unknown = surfaces(StaticBatches.of(experiment, requests), kv, 500, acceptance_known=False)
    assert {value for row in unknown.best_drafts for value in row} == {None}
    assert unknown.break_even == found.break_even


def test_prompts_make_long_drafts_dearer_where_the_server_is_full():
    """Prompts of thousands of tokens set the pace at large batches; drafts then only lengthen the steps."""
    experiment = with_sd(served("qwen3_30b_a3b", H200, prompt=4000, output=60), EAGLE3, 0.8)
    requests = experiment.workload.requests(0)
    static = StaticBatches.of(experiment, requests)
    batches, contexts = np.array([1, 48]), np.array([4000, 4000])
    alone = static.rates(batches, contexts).argmax(axis=0)
    full = static.saturated_rates(batches, contexts).argmax(axis=0)
    assert full[1] < alone[1]
