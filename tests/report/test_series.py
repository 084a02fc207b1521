from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.metrics.summary import Times
from sim.report.series import MOST_POINTS, binned, covered, ecdf, history
from sim.run import simulate
from tests.report.deployments import experiment, pairs

SECONDS = st.floats(0, 1e4, allow_subnormal=False)


@given(st.lists(SECONDS, min_size=1, max_size=2000))
def test_every_point_of_a_thinned_cdf_lies_on_the_whole_one(values):
    values = np.asarray([*values, np.nan])
    x, share = ecdf(values, most_points=50)
    finite = values[:-1]
    assert len(x) == min(len(finite), 50)
    assert x[0] == finite.min()
    assert (x[-1], share[-1]) == (finite.max(), 1.0)
    for point, at in zip(x, share, strict=True):
        assert np.mean(finite < point) < at <= np.mean(finite <= point) + 1e-12


def test_a_cdf_of_nothing_is_empty():
    x, share = ecdf(np.asarray([np.nan, np.nan]))
    assert not x.size
    assert not share.size


def test_a_cdf_keeps_few_points():
    x, _ = ecdf(np.random.default_rng(0).random(20_000))
    assert len(x) == MOST_POINTS


@given(st.lists(st.tuples(SECONDS, SECONDS, st.floats(0, 1e6)), min_size=1, max_size=50), st.integers(1, 40))
def test_bins_add_up_to_what_was_binned(rows, bins):
    gaps, lengths, amounts = (np.asarray(column) for column in zip(*rows, strict=True))
    lengths = lengths + 1e-3
    end = np.cumsum(gaps + lengths)
    start = end - lengths
    inside = binned(start, end, amounts, np.linspace(0.0, end[-1], bins + 1))
    assert inside.sum() == pytest.approx(amounts.sum(), abs=1e-6)
    assert (inside >= -1e-6).all()


def test_an_interval_is_spread_over_the_bins_it_crosses():
    inside = binned(np.asarray([1.0, 6.0]), np.asarray([5.0, 6.5]), np.asarray([8.0, 3.0]), np.arange(0.0, 8.0, 2.0))
    np.testing.assert_allclose(inside, [2.0, 4.0, 2.0])


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=30), st.integers(1, 20))
def test_covered_seconds_are_the_overlaps(rows, bins):
    start = np.asarray([row[0] for row in rows])
    end = start + [row[1] for row in rows]
    edges = np.linspace(0.0, 2e4, bins + 1)
    overlap = np.clip(np.minimum(end[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1]), 0, None)
    np.testing.assert_allclose(covered(start, end, edges), overlap.sum(axis=0), atol=1e-6)


@pytest.mark.parametrize("kind", ["light", "two replicas", "preempting"])
@pytest.mark.parametrize("drafts", [0, 4])
def test_histories_hold_every_token_and_obey_littles_law(kind, drafts):
    settings = {"light": {}, "two replicas": {"replicas": 2}, "preempting": {"kv_blocks": 140}}[kind]
    result = simulate(experiment(drafts=drafts, **settings))
    assert bool(sum(result.recorder.preemptions)) == (kind == "preempting")
    times = Times.of(result.recorder)
    edges = np.linspace(0.0, times.finish_s.max(), 78)
    made = history(result, edges)
    assert made["output_tokens"].sum() == pytest.approx(result.requests.output_tokens.sum())
    in_system = (made["running"] + made["waiting"]) * np.diff(edges)
    assert in_system.sum() == pytest.approx(times.e2e_s.sum(), rel=1e-6)
    assert min(column.min() for column in made.values()) > -1e-9


def test_requests_that_never_queue_never_wait():
    light = history(pairs()[1], np.linspace(0.0, 1.0, 5))
    assert light["waiting"].max() < 1.0
