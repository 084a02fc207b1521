"""Acceptance: prefixes, not independent draws; distributions against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.draws import derive, key
from sim.speculation.acceptance import ConstantRate, RatePerDepth
from sim.theory import sigma

N = 100_000
POLICIES = [
    ConstantRate(rate=0.0), ConstantRate(rate=0.55), ConstantRate(rate=0.9), ConstantRate(rate=1.0),
    RatePerDepth(rates=[0.9, 0.5, 0.8, 0.1]), RatePerDepth(rates=[1.0, 0.0]),
]  # fmt: skip


def draw(policy, depth, seed=0, n=N):
    return policy.depths(derive(key(seed, "acceptance"), np.arange(n)), np.ones(n, dtype=np.int64), depth)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("drafts", [1, 3, 7])
def test_moments_and_tails(policy, drafts):
    depths = draw(policy, drafts)
    survival = policy.survival(drafts)
    mean = survival.sum()
    second = (survival * (2 * np.arange(1, drafts + 1) - 1)).sum()
    deviation = np.sqrt(max(second - mean**2, 0.0))
    assert abs(depths.mean() - mean) <= 4.5 * deviation / np.sqrt(N) + 1e-12
    assert depths.var() == pytest.approx(second - mean**2, abs=0.03)
    none, everything = 1.0 - survival[0], survival[-1]
    assert np.mean(depths == 0) == pytest.approx(none, abs=4.5 * np.sqrt(none * (1 - none) / N) + 1e-12)
    assert np.mean(depths == drafts) == pytest.approx(
        everything, abs=4.5 * np.sqrt(everything * (1 - everything) / N) + 1e-12
    )
    assert policy.mean_accepted(drafts) == pytest.approx(mean)


@given(rate=st.floats(0.0, 1.0), drafts=st.integers(1, 12))
def test_constant_rate_is_equation_5(rate, drafts):
    length = ConstantRate(rate=rate).mean_accepted(drafts) + 1
    assert length / (drafts + 1) == pytest.approx(float(sigma(rate, drafts)), rel=1e-9)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_one_depth_serves_every_draft_length(policy):
    deep = draw(policy, 12, n=2000)
    for drafts in (1, 2, 5):
        assert (draw(policy, drafts, n=2000) == np.minimum(deep, drafts)).all()


def test_requests_and_positions_are_independent():
    policy = ConstantRate(rate=0.7)
    keys = derive(key(0, "acceptance"), np.arange(1000))[:, None]
    depths = policy.depths(keys, np.arange(200)[None, :], 5)
    assert abs(np.corrcoef(depths[:, :-1].ravel(), depths[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(depths[:-1].ravel(), depths[1:].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConstantRate(rate=1.7), r"speculation\.acceptance\.rate must lie in \[0, 1\], got 1\.7"),
        (
            lambda: RatePerDepth(rates=[0.5, -0.1]),
            r"speculation\.acceptance\.rates\[1\] must lie in \[0, 1\], got -0\.1",
        ),
        (lambda: RatePerDepth(rates=[]), r"speculation\.acceptance\.rates must hold at least one rate"),
        (lambda: ConstantRate(rate=float("nan")), "must lie in"),
    ],
)
def test_bounds(build, message):
    with pytest.raises(ValueError, match=message):
        build()
