"""The closed forms of "MoESD: Unveil Speculative Decoding's Potential for Accelerating Sparse MoE" (arXiv 2505.19645).

Scalars or float arrays go in and come out; arrays broadcast. E: experts, K: experts per token, rho = K / E, t: tokens,
alpha: acceptance rate, gamma: draft tokens, B: batch size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Real = Any  # float for scalar arguments, float64 array else


def _check(ok: Any, message: str, got: object) -> None:
    if not np.all(ok):
        raise ValueError(f"{message}, got {got}")


def _check_sparsity(rho: ArrayLike) -> None:
    values = np.asarray(rho, dtype=float)
    _check((values > 0) & (values <= 1), "rho must lie in (0, 1]", rho)


def arithmetic_intensity(flops: ArrayLike, moved_bytes: ArrayLike) -> Real:
    """Eq. 1: FLOPs per byte moved; an op is memory-bound where this is below the ridge point."""
    _check(np.asarray(moved_bytes) > 0, "moved_bytes must be > 0", moved_bytes)
    return np.true_divide(flops, moved_bytes)


def ridge_point(peak_flops_per_s: ArrayLike, bandwidth_bytes_per_s: ArrayLike) -> Real:
    """Eq. 1: RP, peak FLOP/s over peak bytes/s."""
    _check(np.asarray(bandwidth_bytes_per_s) > 0, "bandwidth_bytes_per_s must be > 0", bandwidth_bytes_per_s)
    return np.true_divide(peak_flops_per_s, bandwidth_bytes_per_s)


def sd_seconds(
    rounds: ArrayLike, gamma: ArrayLike, draft_s: ArrayLike, verify_s: ArrayLike, reject_s: ArrayLike
) -> Real:
    """Eq. 2: T_SD = R (gamma T_D(B, 1) + T_T(B, gamma) + T_reject)."""
    _check(np.asarray(rounds) >= 0, "rounds must be >= 0", rounds)
    return np.multiply(rounds, np.multiply(gamma, draft_s) + np.add(verify_s, reject_s))


def speedup(
    alpha: ArrayLike,
    gamma: ArrayLike,
    *,
    draft_s: ArrayLike,
    decode_s: ArrayLike,
    verify_s: ArrayLike,
    reject_s: ArrayLike = 0.0,
) -> Real:
    """Eq. 3-4: tokens per round times T_T(B, 1) over the round's seconds.

    Args:
        alpha: acceptance rate.
        gamma: draft tokens; tokens per round S/R = sigma (gamma + 1).
        draft_s: T_D(B, 1), one draft forward.
        decode_s: T_T(B, 1), one target forward without drafts.
        verify_s: T_T(B, gamma), one target forward over the drafts.
        reject_s: T_reject, rejection sampling of the round.
    """
    _check(np.asarray(decode_s) > 0, "decode_s must be > 0", decode_s)
    tokens_per_round = sigma(alpha, gamma) * (np.asarray(gamma) + 1)
    return tokens_per_round * decode_s / sd_seconds(1, gamma, draft_s, verify_s, reject_s)


def sigma(alpha: ArrayLike, gamma: ArrayLike) -> Real:
    """Eq. 5: (1 - alpha^(gamma+1)) / (1 - alpha) / (gamma + 1), tokens of a round over gamma + 1."""
    rate, drafts = np.asarray(alpha, dtype=float), np.asarray(gamma, dtype=float)
    _check((rate >= 0) & (rate <= 1), "alpha must lie in [0, 1]", alpha)
    _check(drafts >= 0, "gamma must be >= 0", gamma)
    below_one = np.where(rate < 1, rate, 0.0)
    geometric = (1.0 - below_one ** (drafts + 1)) / (1.0 - below_one)
    return np.where(rate < 1, geometric / (drafts + 1), 1.0)[()]


def fit_alpha(sigmas: ArrayLike, gammas: ArrayLike) -> float:
    """The alpha whose sigma (eq. 5) is nearest, by least squares, to values measured at several draft lengths."""
    from scipy.optimize import minimize_scalar

    measured, drafts = np.asarray(sigmas, dtype=float), np.asarray(gammas, dtype=float)
    _check((measured > 0) & (measured <= 1), "sigmas must lie in (0, 1]", sigmas)
    _check(drafts >= 1, "gammas must be >= 1", gammas)
    found = minimize_scalar(
        lambda alpha: float(((sigma(alpha, drafts) - measured) ** 2).sum()),
        bounds=(0.0, 1.0),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(found.x)


def alpha_of(tokens_share: float, gamma: float) -> float:
    """The alpha whose sigma (eq. 5) at `gamma` drafts is `tokens_share`; 0 where nothing was drafted.

    Raises:
        ValueError: no alpha in [0, 1] has that sigma.
    """
    _check(gamma >= 0, "gamma must be >= 0", gamma)
    least = 1.0 / (gamma + 1.0)
    _check(least - 1e-9 <= tokens_share <= 1.0 + 1e-9, f"sigma must lie in [{least}, 1] at gamma {gamma}", tokens_share)
    low, high = 0.0, 1.0
    for _ in range(60 if gamma else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma(middle, gamma) < tokens_share else (low, middle)
    return (low + high) / 2 if gamma else 0.0


def target_efficiency(decode_s: ArrayLike, verify_s: ArrayLike) -> Real:
    """Section 3.2: T_T(B, 1) / T_T(B, gamma)."""
    _check(np.asarray(verify_s) > 0, "verify_s must be > 0", verify_s)
    return np.true_divide(decode_s, verify_s)


def activation_probability(tokens: ArrayLike, rho: ArrayLike) -> Real:
    """Eq. 6-7: Pr(an expert is hit by `tokens` tokens) = 1 - (1 - rho)^t."""
    _check(np.asarray(tokens) >= 0, "tokens must be >= 0", tokens)
    _check_sparsity(rho)
    return 1.0 - np.power(1.0 - np.asarray(rho, dtype=float), np.asarray(tokens, dtype=float))


def activated_experts(tokens: ArrayLike, experts: ArrayLike, per_token: ArrayLike) -> Real:
    """Eq. 8: N(t) = E (1 - ((E - K) / E)^t), expected distinct experts."""
    _check(np.asarray(experts) > 0, "experts must be > 0", experts)
    return np.asarray(experts) * activation_probability(tokens, np.true_divide(per_token, experts))


def full_activation_tokens(rho: ArrayLike, tau: ArrayLike = 0.95) -> Real:
    """Eq. 9: T_thres = ceil(log_{1-rho}(1 - tau)), tokens from which at least tau E experts are hit; 1 at rho = 1."""
    _check_sparsity(rho)
    share = np.asarray(tau, dtype=float)
    _check((share > 0) & (share < 1), "tau must lie in (0, 1)", tau)
    density = np.asarray(rho, dtype=float)
    sparse = np.where(density < 1, density, 0.5)
    return np.where(density < 1, np.ceil(np.log(1.0 - share) / np.log(1.0 - sparse)), 1.0)[()]


def tokens_per_expert(tokens: ArrayLike, rho: ArrayLike) -> Real:
    """Eq. 10: T_exp(t; rho) = rho t / (1 - (1 - rho)^t), mean tokens of an activated expert; t must be > 0."""
    _check(np.asarray(tokens) > 0, "tokens must be > 0", tokens)
    return np.multiply(rho, tokens) / activation_probability(tokens, rho)


def tokens_per_expert_slope(tokens: ArrayLike, rho: ArrayLike) -> Real:
    """Eq. 12-14: dT_exp/drho = t (1 - F) / (1 - (1 - rho)^t)^2 with F = (1 - rho)^(t-1) (rho t + 1 - rho) <= 1.

    Non-negative: a sparser model gives each activated expert fewer tokens, so it turns compute-bound later.
    """
    hit = activation_probability(tokens, rho)
    count, density = np.asarray(tokens, dtype=float), np.asarray(rho, dtype=float)
    _check(count >= 1, "tokens must be >= 1", tokens)
    below_one = np.power(1.0 - density, count - 1.0) * (density * count + 1.0 - density)
    return count * (1.0 - below_one) / hit**2


def roofline_growth(tokens: ArrayLike, knee_tokens: float, base: float) -> Real:
    """Eq. 11: G(t; lambda RP, s) = s^t up to the knee lambda RP, its tangent there beyond it.

    Args:
        tokens: t >= 0.
        knee_tokens: lambda RP > 0, tokens at which the op turns compute-bound.
        base: s >= 1.
    """
    _check(np.asarray(tokens) >= 0, "tokens must be >= 0", tokens)
    _check(knee_tokens > 0, "knee_tokens must be > 0", knee_tokens)
    _check(base >= 1, "base must be >= 1", base)
    count = np.asarray(tokens, dtype=float)
    beyond = np.maximum(count - knee_tokens, 0.0)
    return np.power(base, np.minimum(count, knee_tokens)) * (1.0 + math.log(base) * beyond)
