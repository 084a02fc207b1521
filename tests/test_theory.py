"""The paper's closed forms: the published arithmetic, limits, and the proof's derivative."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import theory

TABLE = [  # K, E, T_thres at tau = .90, .95, .99, N at 1, 4, 8, 16, 32, 64 tokens
    (8, 64, (18, 23, 35), (8, 26.5, 42.0, 56.4, 63.1, 64.0)),
    (1, 64, (147, 191, 293), (1, 3.9, 7.6, 14.3, 25.3, 40.6)),
    (2, 64, (73, 95, 146), (2, 7.6, 14.4, 25.5, 40.8, 55.6)),
    (4, 64, (36, 47, 72), (4, 14.6, 25.8, 41.2, 55.9, 63.0)),
    (16, 64, (9, 11, 17), (16, 43.8, 57.6, 63.4, 64, 64)),
    (32, 64, (4, 5, 7), (32, 60, 63.8, 64, 64, 64)),
    (2, 8, (9, 11, 17), (2, 5.5, 7.2, 7.9, 8, 8)),
    (8, 128, (36, 47, 72), (8, 29.1, 51.6, 82.4, 111.8, 125.9)),
    (8, 256, (73, 95, 146), (8, 30.5, 57.4, 102, 163.3, 222.4)),
]
TOKENS = np.array([1, 4, 8, 16, 32, 64])
rhos = st.floats(0.005, 0.995)


@pytest.mark.parametrize(("per_token", "experts", "thresholds", "activated"), TABLE)
def test_published_arithmetic(
    per_token: int, experts: int, thresholds: tuple[int, ...], activated: tuple[float, ...]
) -> None:
    assert theory.activated_experts(TOKENS, experts, per_token) == pytest.approx(activated, abs=0.06)
    assert tuple(theory.full_activation_tokens(per_token / experts, np.array([0.90, 0.95, 0.99]))) == thresholds


@given(experts=st.integers(2, 512), per_token=st.integers(1, 16), tau=st.floats(0.5, 0.99))
def test_threshold_is_the_first_full_activation(experts: int, per_token: int, tau: float) -> None:
    per_token = min(per_token, experts)
    first = theory.full_activation_tokens(per_token / experts, tau)
    assert theory.activated_experts(first, experts, per_token) >= tau * experts * (1 - 1e-9)
    assert theory.activated_experts(first - 1, experts, per_token) < tau * experts * (1 + 1e-9)


def test_a_dense_model_is_the_case_rho_1() -> None:
    assert theory.activated_experts(np.array([1, 7]), 4, 4) == pytest.approx([4, 4])
    assert theory.full_activation_tokens(1.0) == 1
    assert theory.tokens_per_expert(7, 1.0) == 7


@given(alpha=st.floats(0, 0.999), gamma=st.integers(0, 12))
def test_sigma_is_the_mean_of_the_accepted_prefix(alpha: float, gamma: int) -> None:
    tokens_per_round = sum(alpha**depth for depth in range(gamma + 1))
    assert theory.sigma(alpha, gamma) * (gamma + 1) == pytest.approx(tokens_per_round)


def test_sigma_limits() -> None:
    assert theory.sigma(1.0, 4) == 1.0
    assert theory.sigma(0.0, 4) == pytest.approx(1 / 5)
    assert theory.sigma(np.array([0.0, 1.0]), 1) == pytest.approx([0.5, 1.0])


@given(alpha=st.floats(0.01, 0.99))
def test_alpha_comes_back_from_its_sigmas(alpha: float) -> None:
    gammas = np.array([2, 3, 4])
    assert theory.fit_alpha(theory.sigma(alpha, gammas), gammas) == pytest.approx(alpha, abs=1e-5)


@given(sigmas=st.lists(st.floats(0.4, 0.95), min_size=3, max_size=3))
def test_the_fitted_alpha_is_the_nearest(sigmas: list[float]) -> None:
    def distance(alpha: float) -> float:
        return float(((theory.sigma(alpha, np.array([2, 3, 4])) - sigmas) ** 2).sum())

    best = distance(theory.fit_alpha(sigmas, [2, 3, 4]))
    assert all(best <= distance(alpha) + 1e-9 for alpha in np.linspace(0, 1, 51))


@pytest.mark.parametrize(
    ("published", "alphas"),
    [((0.94, 0.93, 0.91), (0.94, 0.95, 0.95)), ((0.78, 0.66, 0.58), (0.76, 0.73, 0.72))],
)
def test_alphas_behind_published_sigmas(published: tuple[float, ...], alphas: tuple[float, ...]) -> None:
    """Table 1 of the paper: Qwen2 and Mixtral, HumanEval, T = 0, on 2xA800."""
    for gamma, value, alpha in zip((2, 3, 4), published, alphas, strict=True):
        assert theory.fit_alpha(value, gamma) == pytest.approx(alpha, abs=0.006)
    assert min(alphas) <= theory.fit_alpha(published, [2, 3, 4]) <= max(alphas) + 0.006


def test_speedup_is_time_without_over_time_with() -> None:
    times = {"draft_s": 0.5e-3, "verify_s": 12e-3, "reject_s": 0.2e-3}
    tokens = 1000
    rounds = tokens / (theory.sigma(0.8, 3) * 4)
    expected = tokens * 10e-3 / theory.sd_seconds(rounds, 3, **times)
    assert theory.speedup(0.8, 3, decode_s=10e-3, **times) == pytest.approx(expected)
    assert theory.target_efficiency(10e-3, 12e-3) == pytest.approx(10 / 12)
    # Nothing accepted and nothing gained: slower by exactly what the round adds.
    assert theory.speedup(0.0, 3, decode_s=10e-3, **times) == pytest.approx(10 / 13.7)


@given(rho=rhos, tokens=st.integers(2, 200))
def test_sparser_experts_see_fewer_tokens(rho: float, tokens: int) -> None:
    step = 1e-6
    numeric = (theory.tokens_per_expert(tokens, rho + step) - theory.tokens_per_expert(tokens, rho - step)) / (2 * step)
    slope = theory.tokens_per_expert_slope(tokens, rho)
    assert slope > 0
    assert slope == pytest.approx(numeric, rel=1e-3)


@given(knee=st.floats(2, 200), base=st.floats(1.0, 1.2))
def test_growth_is_smooth_at_its_knee(knee: float, base: float) -> None:
    at = [theory.roofline_growth(knee + offset, knee, base) for offset in (-1e-4, 0.0, 1e-4)]
    assert at[1] == pytest.approx(base**knee)
    assert at[1] - at[0] == pytest.approx(at[2] - at[1], rel=1e-3, abs=1e-9)
    beyond = theory.roofline_growth(np.array([knee + 1, knee + 2, knee + 3]), knee, base)
    assert np.diff(beyond, 2) == pytest.approx(0, abs=1e-6 * beyond[-1])


def test_ridge_point_parts_memory_from_compute() -> None:
    ridge = theory.ridge_point(989e12, 3.35e12)
    assert ridge == pytest.approx(295.2, abs=0.1)
    assert theory.arithmetic_intensity(2 * 64, 2) < ridge < theory.arithmetic_intensity(2 * 512, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.sigma(1.7, 2), "alpha"),
        (lambda: theory.sigma(0.5, -1), "gamma"),
        (lambda: theory.fit_alpha([0.5, 1.2], [2, 3]), "sigmas"),
        (lambda: theory.fit_alpha([0.5], [0]), "gammas"),
        (lambda: theory.activated_experts(-1, 8, 2), "tokens"),
        (lambda: theory.activated_experts(4, 8, 9), "rho"),
        (lambda: theory.activated_experts(4, 0, 1), "experts"),
        (lambda: theory.full_activation_tokens(0.0), "rho"),
        (lambda: theory.full_activation_tokens(0.1, 1.0), "tau"),
        (lambda: theory.tokens_per_expert(0, 0.1), "tokens"),
        (lambda: theory.roofline_growth(4, 10, 0.9), "base"),
        (lambda: theory.roofline_growth(np.array([1, -1]), 10, 1.1), "tokens"),
        (lambda: theory.ridge_point(1, 0), "bandwidth_bytes_per_s"),
        (lambda: theory.target_efficiency(1, 0), "verify_s"),
    ],
)
def test_bounds(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=rf"{message} must"):
        call()
