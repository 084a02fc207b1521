"""The routed experts: every kernel equals the naive loop, and the synthetic routings hit what they say."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.profiling.experts import (
    activate,
    apply_experts,
    choose_experts,
    grouped_gemm,
    kernels_at,
    loop_gemm,
    random_experts,
    route,
    router_logits,
)
from sim.profiling.place import find_place


def naive(hidden, chosen, shares, weights):
    """Token by token, expert by expert."""
    out = torch.zeros_like(hidden)
    for token in range(len(hidden)):
        for expert, share in zip(chosen[token].tolist(), shares[token].tolist(), strict=True):
            inner = activate(hidden[token] @ weights.up[expert].T, gated=weights.gated)
            out[token] += share * (inner @ weights.down[expert].T)
    return out


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("routing", ["uniform", "zipf_1.0", "pool_3"])
@pytest.mark.parametrize("kernel", ["grouped_mm", "loop"])
def test_grouped_experts_equal_the_naive_loop(kernel: str, routing: str, gated: bool) -> None:
    place = find_place("cpu", "fp32")
    weights = random_experts(place, 8, 16, 12, gated=gated)
    chosen, shares = torch.from_numpy(route(11, 8, 3, routing)), torch.rand(11, 3)
    hidden = place.randn(11, 16)
    torch.testing.assert_close(
        apply_experts(hidden, chosen, shares, weights, kernel), naive(hidden, chosen, shares, weights)
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_grouped_gemm_of_torch_equals_one_gemm_per_expert(dtype: str) -> None:
    place = find_place("cpu", dtype)
    rows, weights = place.randn(20, 16), place.randn(4, 24, 16)
    ends = torch.tensor([0, 7, 7, 20], dtype=torch.int32)
    torch.testing.assert_close(grouped_gemm("grouped_mm")(rows, weights, ends), loop_gemm(rows, weights, ends))


def test_one_expert_is_a_dense_ffn() -> None:
    place = find_place("cpu", "fp32")
    weights = random_experts(place, 1, 16, 12, gated=True)
    hidden = place.randn(5, 16)
    dense = activate(hidden @ weights.up[0].T, gated=True) @ weights.down[0].T
    alone = apply_experts(hidden, torch.zeros(5, 1, dtype=torch.int64), torch.ones(5, 1), weights, kernels_at(place)[0])
    torch.testing.assert_close(alone, dense)


@pytest.mark.parametrize("routing", ["uniform", "zipf_1.0", "pool_8", "pool_64"])
def test_a_token_never_draws_an_expert_twice(routing: str) -> None:
    assert all(len(set(row)) == 6 for row in route(300, 64, 6, routing).tolist())


def test_a_pool_hits_exactly_its_experts() -> None:
    for pool in (6, 16, 40):
        assert len(np.unique(route(64, 64, 6, f"pool_{pool}"))) == pool


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_router_chooses_what_was_drawn(dtype: str) -> None:
    drawn = route(50, 64, 6, "uniform")
    chosen, shares = choose_experts(router_logits(drawn, 64, find_place("cpu", dtype)), 6)
    assert [set(row) for row in chosen.tolist()] == [set(row) for row in drawn.tolist()]
    assert shares.sum(1).tolist() == pytest.approx([1.0] * 50)


def test_uniform_routing_hits_the_expected_number_of_experts() -> None:
    hit = np.mean([len(np.unique(route(8, 128, 8, "uniform", seed))) for seed in range(200)])
    assert hit == pytest.approx(128 * (1 - (1 - 8 / 128) ** 8), rel=0.01)


def test_skew_hits_fewer_experts() -> None:
    counts = [len(np.unique(route(32, 128, 8, routing))) for routing in ("uniform", "zipf_0.5", "zipf_1.0")]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]


@pytest.mark.parametrize("routing", ["balanced", "pool_2", "pool_65", "zipf_"])
def test_an_impossible_routing_is_refused(routing: str) -> None:
    with pytest.raises(ValueError, match="routing"):
        route(4, 64, 6, routing)
