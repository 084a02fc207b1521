"""Acceptance: prefixes, not independent draws; distributions against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.draws import derive, key
from sim.request import Requests
from sim.speculation.acceptance import (
    BetaRate,
    ConstantRate,
    DriftingRate,
    MeanLength,
    RatePerDepth,
    RatePerGroup,
    RatePerPosition,
)  # fmt: skip
from sim.theory import sigma

N = 100_000
POLICIES = [
    ConstantRate(rate=0.0), ConstantRate(rate=0.55), ConstantRate(rate=0.9), ConstantRate(rate=1.0),
    RatePerDepth(rates=[0.9, 0.5, 0.8, 0.1]), RatePerDepth(rates=[1.0, 0.0]),
    RatePerPosition(rates=[0.8, 0.8, 0.35, 0.0]),
    MeanLength(length=2.6, drafts=4), MeanLength(length=3.5, drafts=4, shape="minimum_variance"),
    MeanLength(length=2.2, drafts=3, shape="curve", curve=[0.9, 0.6, 0.7]),
    BetaRate(mean=0.7, concentration=4.0), BetaRate(mean=0.2, concentration=0.5),
    DriftingRate(mean=0.7, concentration=4.0, drift_tokens=50),
    DriftingRate(mean=0.6, concentration=8.0, drift_tokens=7, request_share=0.5),
]  # fmt: skip


def draw(policy, depth, seed=0, n=N):
    """One position of each of `n` requests: independent draws, whatever correlates positions of one request."""
    positions = derive(key(1, "positions"), np.arange(n)).astype(np.int64) % 500
    return policy.depths(derive(key(seed, "acceptance"), np.arange(n)), np.abs(positions), depth)


def within(measured, expected, variance, n=N):
    return abs(measured - expected) <= 4.5 * np.sqrt(max(variance, 0.0) / n) + 1e-4


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("drafts", [1, 3, 7])
def test_moments_and_tails(policy, drafts):
    depths = draw(policy, drafts)
    survival = policy.survival(drafts)
    assert (np.diff(survival) <= 1e-12).all()
    assert ((survival >= 0) & (survival <= 1)).all()
    orders = np.arange(1, drafts + 1)
    first, second, third, fourth = ((survival * (orders**k - (orders - 1) ** k)).sum() for k in (1, 2, 3, 4))
    variance = second - first**2
    fourth_central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
    assert within(depths.mean(), first, variance)
    assert within(depths.var(), variance, fourth_central - variance**2)
    none, everything = 1.0 - survival[0], survival[-1]
    assert within(np.mean(depths == 0), none, none * (1 - none))
    assert within(np.mean(depths == drafts), everything, everything * (1 - everything))
    if not isinstance(policy, BetaRate):
        assert policy.mean_accepted(drafts) == pytest.approx(first)


def walked(depths):
    """Accepted tokens per round of requests that walk through their rows of depths."""
    rounds = accepted = 0
    for row in depths.tolist():
        at = 0
        while at < len(row):
            rounds, accepted = rounds + 1, accepted + row[at]
            at += row[at] + 1
    return accepted / rounds


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_mean_accepted_is_that_of_rounds(policy):
    """Rounds are denser where little is accepted: an engine reports less than the mean over positions."""
    keys = derive(key(0, "acceptance"), np.arange(1500))[:, None]
    measured = walked(policy.depths(keys, np.arange(300)[None, :], 4))
    assert measured == pytest.approx(policy.mean_accepted(4), abs=0.035 if isinstance(policy, BetaRate) else 0.02)
    assert policy.mean_accepted(4) <= policy.survival(4).sum() + 1e-9


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_one_depth_serves_every_draft_length(policy):
    deep = draw(policy, 12, n=2000)
    for drafts in (1, 2, 5):
        assert (draw(policy, drafts, n=2000) == np.minimum(deep, drafts)).all()


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_draw_depends_on_its_address_alone(policy):
    keys = derive(key(3, "acceptance"), np.arange(20))[:, None]
    positions = np.arange(60)[None, :]
    whole = policy.depths(keys, positions, 6)
    assert whole.shape == (20, 60)
    assert (policy.depths(keys[::-1], positions[:, 10:30], 6)[::-1] == whole[:, 10:30]).all()
    assert policy.depths(keys[4, 0], np.array([17]), 6)[0] == whole[4, 17]


@given(rate=st.floats(0.0, 1.0), drafts=st.integers(1, 12))
def test_constant_rate_is_equation_5(rate, drafts):
    length = ConstantRate(rate=rate).mean_accepted(drafts) + 1
    assert length / (drafts + 1) == pytest.approx(float(sigma(rate, drafts)), rel=1e-9)


@given(share=st.floats(0.0, 1.0), drafts=st.integers(1, 8), shape=st.sampled_from(["geometric", "minimum_variance"]))
def test_a_fitted_curve_has_the_length_it_was_given(share, drafts, shape):
    policy = MeanLength(length=1 + share * drafts, drafts=drafts, shape=shape)
    assert policy.mean_accepted(drafts) + 1 == pytest.approx(1 + share * drafts, abs=1e-9)


@given(share=st.floats(0.02, 0.98))
def test_a_scaled_curve_keeps_length_and_order(share):
    curve = [0.9, 0.5, 0.8, 0.6, 0.7]
    policy = MeanLength(length=1 + share * 4, drafts=4, shape="curve", curve=curve)
    assert policy.mean_accepted(4) + 1 == pytest.approx(1 + share * 4, abs=1e-6)
    survival = policy.survival(5)
    conditional = survival / np.concatenate([[1.0], survival[:-1]])
    powers = np.log(conditional) / np.log(curve)
    assert powers == pytest.approx(powers[0], rel=1e-6)


def test_the_published_minimum_variance_vector():
    assert MeanLength(length=3.5, drafts=4, shape="minimum_variance").survival(4).tolist() == [1.0, 1.0, 0.5, 0.0]


def test_requests_and_positions_are_independent():
    policy = ConstantRate(rate=0.7)
    keys = derive(key(0, "acceptance"), np.arange(1000))[:, None]
    depths = policy.depths(keys, np.arange(200)[None, :], 5)
    assert abs(np.corrcoef(depths[:, :-1].ravel(), depths[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(depths[:-1].ravel(), depths[1:].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize(
    "policy",
    [
        BetaRate(mean=0.7, concentration=5.0),
        DriftingRate(mean=0.7, concentration=5.0, drift_tokens=20),
        DriftingRate(mean=0.3, concentration=2.0, drift_tokens=100, request_share=0.6),
    ],
    ids=repr,
)
def test_rates_are_beta_distributed_everywhere(policy):
    rates = policy.rates(derive(key(2, "acceptance"), np.arange(20_000)), np.arange(20_000) % 333)
    a, b = policy.mean * policy.concentration, (1 - policy.mean) * policy.concentration
    assert stats.kstest(rates, stats.beta(a, b).cdf).pvalue > 1e-3
    variance = policy.mean * (1 - policy.mean) / (policy.concentration + 1)
    assert rates.var() == pytest.approx(variance, rel=0.05)


def test_a_beta_rate_belongs_to_its_request():
    keys = derive(key(0, "acceptance"), np.arange(50))[:, None]
    rates = BetaRate(mean=0.6, concentration=3.0).rates(keys, np.arange(40)[None, :])
    assert (rates == rates[:, :1]).all()
    assert len(np.unique(rates[:, 0])) == 50


def test_drift_is_smooth_and_forgets():
    keys = derive(key(0, "acceptance"), np.arange(4000))[:, None]
    positions = np.array([0, 1, 10, 100, 105, 1000])[None, :]
    pure = DriftingRate(mean=0.7, concentration=5.0, drift_tokens=50).rates(keys, positions)
    shared = DriftingRate(mean=0.7, concentration=5.0, drift_tokens=50, request_share=0.5).rates(keys, positions)
    correlation = np.corrcoef(pure.T)
    assert correlation[0, 1] > 0.99
    assert correlation[0, 2] > 0.9
    assert abs(correlation[0, 5]) < 0.06
    assert 0.35 < np.corrcoef(shared.T)[0, 5] < 0.6
    steps = DriftingRate(mean=0.7, concentration=5.0, drift_tokens=50).rates(keys[:100], np.arange(500)[None, :])
    assert np.abs(np.diff(steps, axis=1)).max() < 0.15


def test_correlation_spreads_the_accepted_tokens_of_a_request():
    """Heterogeneity leaves the mean of a position alone and widens that of a request's output."""
    keys = derive(key(0, "acceptance"), np.arange(3000))[:, None]
    positions = np.arange(200)[None, :]
    spread = {}
    for policy in (
        RatePerPosition(rates=BetaRate(mean=0.7, concentration=5.0).survival(4).tolist()),
        DriftingRate(mean=0.7, concentration=5.0, drift_tokens=50),
        BetaRate(mean=0.7, concentration=5.0),
    ):
        depths = policy.depths(keys, positions, 4)
        spread[type(policy)] = depths.mean(axis=1).std()
    assert 3 * spread[RatePerPosition] < spread[DriftingRate] < 0.8 * spread[BetaRate]


def stream(groups, group):
    n = len(group)
    return Requests(
        arrival_s=np.zeros(n), prompt_tokens=np.full(n, 10), output_tokens=np.full(n, 10),
        group=np.array(group, dtype=np.int32), groups=groups,
    )  # fmt: skip


def test_groups_have_curves_of_their_own():
    policy = RatePerGroup(rates={"code": [0.9, 0.9, 0.9], "chat": [0.5, 0.4]}, shares={"code": 0.25, "chat": 0.75})
    requests = stream(("chat", "code"), [0, 1] * 500)
    policy.check(requests)
    ids = np.arange(1000)[:, None]
    keys = derive(key(0, "acceptance"), ids)
    depths = policy.depths(keys, np.arange(100)[None, :], 3, requests, ids)
    for group, rates in ((0, [0.5, 0.4]), (1, [0.9, 0.9, 0.9])):
        alone = RatePerDepth(rates=rates)
        assert (depths[group::2] == alone.depths(keys[group::2], np.arange(100)[None, :], 3)).all()
    assert policy.survival(3) == pytest.approx([0.25 * 0.9 + 0.75 * 0.5, 0.25 * 0.81 + 0.75 * 0.2, 0.25 * 0.729])
    assert walked(depths) == pytest.approx(RatePerGroup(rates=policy.rates).mean_accepted(3), rel=0.02)
    with pytest.raises(ValueError, match="must name every group of the workload: math missing"):
        policy.check(stream(("chat", "math"), [0, 1]))
    policy.check(stream(("chat", "math"), [0, 0]))


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
        (lambda: RatePerPosition(rates=[0.5, 0.6]), r"rates\[1\] must be <= rates\[0\] = 0\.5, got 0\.6"),
        (lambda: MeanLength(length=0.9, drafts=3), r"length must lie in \[1, drafts \+ 1 = 4\], got 0\.9"),
        (lambda: MeanLength(length=4.1, drafts=3), r"length must lie in \[1, drafts \+ 1 = 4\], got 4\.1"),
        (lambda: MeanLength(length=1.5, drafts=0), "drafts must be >= 1"),
        (lambda: MeanLength(length=1.5, drafts=2, shape="flat"), "shape must be one of"),
        (lambda: MeanLength(length=1.5, drafts=2, curve=[0.5, 0.5]), "curve has no effect"),
        (lambda: MeanLength(length=1.5, drafts=2, shape="curve", curve=[0.5]), "must hold at least drafts = 2"),
        (lambda: MeanLength(length=1.5, drafts=1, shape="curve", curve=[1.0]), r"inside \(0, 1\)"),
        (lambda: BetaRate(mean=1.0, concentration=2.0), r"mean must lie inside \(0, 1\), got 1\.0"),
        (lambda: BetaRate(mean=0.5, concentration=0.0), "concentration must be > 0"),
        (lambda: DriftingRate(mean=0.5, concentration=1.0, drift_tokens=0), "drift_tokens must be >= 1"),
        (lambda: DriftingRate(mean=0.5, concentration=1.0, drift_tokens=5, request_share=1.0), "request_share must"),
        (lambda: DriftingRate(mean=1.5, concentration=1.0, drift_tokens=5), "mean must lie inside"),
        (lambda: RatePerGroup(rates={}), "must name at least one group"),
        (lambda: RatePerGroup(rates={"a": [1.2]}), r"rates\.a\[0\] must lie in"),
        (lambda: RatePerGroup(rates={"a": [0.2]}, shares={"b": 1.0}), "shares must name the groups of rates"),
        (lambda: RatePerGroup(rates={"a": [0.2]}, shares={"a": 0.5}), "sum to 1"),
    ],
)
def test_bounds(build, message):
    with pytest.raises(ValueError, match=message):
        build()
