"""A step is its parts; what the serving loop is handed equals what StepCost says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sim import Cluster, step_cost
from sim.cost.lines import TICKS_PER_S
from sim.cost.shape import StepShape
from sim.cost.times import StepTimes
from tests.deployments import experiment, speculation

DEPLOYMENTS = {
    "moe": {"model": "qwen3_30b_a3b"},
    "moe SD": {"model": "qwen3_30b_a3b", "speculation": speculation(4)},
    "dense SD": {"model": "qwen3_8b", "speculation": speculation(2)},
    "tp2 SD": {
        "model": "qwen2_57b_a14b",
        "speculation": speculation(3),
        "cluster": Cluster(gpu="h200_sxm", tensor_parallel=2),
    },
    "sliding": {"model": "gpt_oss_20b"},
    "linear": {"model": "qwen3_next_80b_a3b", "cluster": Cluster(gpu="h200_sxm", tensor_parallel=2)},
    "mla": {"model": "deepseek_v2_lite"},
}


@pytest.fixture(scope="module", params=DEPLOYMENTS, ids=list(DEPLOYMENTS))
def cost(request):
    return step_cost(experiment(**DEPLOYMENTS[request.param]))


def times_of(cost):
    return StepTimes(lambda _: cost, cost.width - 1, 8192, 1 << 20)


def shapes(cost, n=200):
    rng = np.random.default_rng(0)
    sequences = rng.integers(1, 129, n)
    prompt = rng.integers(1, 2000, n)
    history = rng.integers(0, 2, n) * rng.integers(0, 4000, n)
    return [
        StepShape(
            sequences=int(b),
            width=cost.width,
            context_tokens=int(b * c),
            chunks=1,
            prefill_tokens=int(q),
            prefill_history_tokens=int(h),
            prefill_pairs=int(q * h + q * (q + 1) // 2),
            completed=int(done),
        )
        for b, c, q, h, done in zip(
            sequences, rng.integers(10, 4000, n), prompt, history, rng.integers(0, 2, n), strict=True
        )
    ]


def test_families_and_phases_sum_to_the_step(cost):
    for shape in shapes(cost, 20):
        seconds = float(cost.seconds(shape))
        assert sum(map(float, cost.families(shape).values())) == pytest.approx(seconds, rel=1e-12)
        assert sum(map(float, cost.phases(shape).values())) == pytest.approx(seconds, rel=1e-12)
        assert all(float(part) >= 0 for part in cost.families(shape).values())


def test_arrays_are_priced_like_scalars(cost):
    many = shapes(cost, 40)
    columns = {
        name: np.array([getattr(shape, name) for shape in many])
        for name in ("sequences", "width", "context_tokens", "chunks", "prefill_tokens", "prefill_history_tokens",
                     "prefill_pairs", "completed")
    }  # fmt: skip
    together = cost.seconds(StepShape(**columns))
    assert together == pytest.approx([float(cost.seconds(shape)) for shape in many], rel=1e-12)


def test_mixed_steps_in_ticks_equal_the_cost(cost):
    times = times_of(cost)
    for shape in shapes(cost):
        ticks = times.mixed(
            cost.width - 1,
            shape.sequences, shape.context_tokens,
            (shape.chunks, shape.prefill_tokens, shape.prefill_history_tokens, shape.prefill_pairs, shape.completed),
        )  # fmt: skip
        assert ticks / TICKS_PER_S == pytest.approx(float(cost.seconds(shape)), rel=2e-3)


def test_decode_lines_equal_the_cost(cost):
    times = times_of(cost)
    for sequences in (1, 7, 64, 200):
        context = np.unique(np.geomspace(sequences, 1 << 20, 200).astype(np.int64))
        exact = cost.seconds(StepShape(sequences=sequences, width=cost.width, context_tokens=context))
        assert times.decode(sequences, cost.width - 1).durations(context) / TICKS_PER_S == pytest.approx(
            exact, rel=2e-3
        )


def test_lines_say_the_same_of_one_step_and_of_many(cost):
    lines = times_of(cost).decode(16, cost.width - 1)
    context = np.cumsum(np.random.default_rng(1).integers(16, 80, 5000))
    for low, high in ((0, 1), (0, 5000), (17, 300), (4000, 4003)):
        part = context[low:high]
        assert int(lines.durations(part).sum()) == sum(lines.at(int(c)) for c in part)


def test_a_wider_step_costs_no_less(cost):
    for sequences in (1, 4, 16, 64, 256):
        shape = StepShape(sequences=sequences, context_tokens=sequences * 1000)
        widths = [float(cost.target_step_s(shape, width)) for width in range(1, 9)]
        assert all(b >= a * (1 - 1e-12) for a, b in itertools.pairwise(widths))


def test_only_drafting_costs_drafting():
    plain, drafted = (step_cost(experiment("qwen3_8b", speculation=s)) for s in (None, speculation(3)))
    shape = StepShape(sequences=8, width=1, context_tokens=8000)
    assert float(plain.families(shape)["draft"]) == 0.0
    one, three = (step_cost(experiment("qwen3_8b", speculation=speculation(d))) for d in (1, 3))
    assert float(three.families(shape)["draft"]) > 2.5 * float(one.families(shape)["draft"]) > 0
    assert float(drafted.families(shape)["gemm"]) == float(plain.families(shape)["gemm"])
