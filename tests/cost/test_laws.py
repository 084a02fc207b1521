"""What must hold of any price, on every kind of layer: bounds, monotonicity, limits, arrays like scalars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.forward import ForwardCost
from sim.cost.shape import StepShape
from sim.cost.work import Work, pnorm
from sim.model import Model
from tests.cost.examples import DEEPSEEK_V2_LITE, MIXED, MODELS, QWEN3_30B, QWEN3_32B, forward

GPUS = ("h200_sxm", "h100_sxm", "a100_80gb_sxm", "l40s", "b200", "l4")
CASES = [forward(model, gpu) for model in MODELS for gpu in ("h200_sxm", "l40s")]
CASES += [forward(QWEN3_30B, "h100_sxm", 4), forward(QWEN3_30B, "h100_sxm", 4, True), forward(MIXED, "h100_sxm", 8)]

each_case = pytest.mark.parametrize(
    "cost", CASES, ids=lambda c: f"{c.model.name}-{c.gpu.name}-tp{c.tensor_parallel}{'-ep' * c.expert_parallel}"
)
shapes = st.builds(
    lambda sequences, width, context, prompt, history: StepShape(
        sequences=sequences,
        width=width,
        context_tokens=sequences * context,
        chunks=int(prompt > 0),
        prefill_tokens=prompt,
        prefill_history_tokens=history * (prompt > 0),
        prefill_pairs=prompt * history + prompt * (prompt + 1) // 2,
        completed=int(prompt > 0),
    ),
    st.integers(0, 600),
    st.integers(1, 9),
    st.integers(0, 40_000),
    st.integers(0, 8192),
    st.integers(0, 30_000),
)


@each_case
@settings(max_examples=40, deadline=None)
@given(shape=shapes)
def test_no_price_beats_the_hard_bound(cost: ForwardCost, shape: StepShape) -> None:
    assert cost.seconds(shape) >= cost.bounds(shape) * (1 - 1e-12)


@each_case
def test_an_empty_step_costs_nothing(cost: ForwardCost) -> None:
    assert cost.seconds(StepShape()) == 0
    assert cost.bounds(StepShape()) == 0


@each_case
@pytest.mark.parametrize("grows", ["sequences", "width", "context", "prompt", "history"])
def test_more_work_never_costs_less(cost: ForwardCost, grows: str) -> None:
    base = {"sequences": 16, "width": 2, "context": 700, "prompt": 300, "history": 100}
    values = np.unique(np.geomspace(1, 600 if grows == "sequences" else 8192, 200).astype(np.int64))
    if grows == "width":
        values = np.arange(1, 17)
    n: dict[str, np.ndarray] = {name: np.full(len(values), value) for name, value in base.items()} | {grows: values}
    shape = StepShape(
        sequences=n["sequences"],
        width=n["width"],
        context_tokens=n["sequences"] * n["context"],
        chunks=np.ones(len(values), dtype=np.int64),
        prefill_tokens=n["prompt"],
        prefill_history_tokens=n["history"],
        prefill_pairs=n["prompt"] * n["history"] + n["prompt"] * (n["prompt"] + 1) // 2,
    )
    for family, seconds in cost.families(shape).items():
        assert np.all(np.diff(np.broadcast_to(seconds, values.shape)) >= -1e-15), family


@each_case
def test_arrays_price_like_scalars(cost: ForwardCost) -> None:
    sequences, width, context = np.array([0, 1, 16, 200]), np.array([1, 1, 4, 2]), np.array([0, 300, 16_000, 90_000])
    together = cost.seconds(StepShape(sequences=sequences, width=width, context_tokens=context))
    single = [
        cost.seconds(StepShape(sequences=int(b), width=int(w), context_tokens=int(c)))
        for b, w, c in zip(sequences, width, context, strict=True)
    ]
    assert together == pytest.approx(single, rel=1e-14)


@each_case
def test_padding_to_a_graph_costs_but_never_saves(cost: ForwardCost) -> None:
    shape = StepShape(sequences=9, context_tokens=9000)
    alone, padded = cost.families(shape), cost.families(shape, 16)
    assert cost.seconds(shape, 9) == cost.seconds(shape)
    assert all(padded[name] >= alone[name] for name in alone)
    assert padded["lm_head"] == alone["lm_head"]
    assert padded["attention_decode"] == alone["attention_decode"]
    if cost.model.is_moe:
        assert cost.distinct_experts(shape, 16) == cost.distinct_experts(StepShape(sequences=16))
        assert padded["experts"] > alone["experts"]


@pytest.mark.parametrize("gpu", GPUS)
def test_decode_follows_the_activated_experts(gpu: str) -> None:
    """Qwen3-30B-A3B, batch 1 to 128: starts low, rises with N(t), and saturates with it."""
    cost = forward(QWEN3_30B, gpu)
    batch = np.arange(1, 129)
    shape = StepShape(sequences=batch, context_tokens=500 * batch)
    distinct = 128 * (1 - (1 - 8 / 128) ** batch)
    assert cost.distinct_experts(shape) == pytest.approx(distinct)
    experts = np.asarray(cost.families(shape)["experts"])
    fixed = 48 * cost.constants.experts.fixed_s
    per_expert = (experts - fixed) / distinct
    assert per_expert.max() < 1.25 * per_expert.min()
    total = np.asarray(cost.seconds(shape))
    assert np.all(np.diff(total) > 0)
    assert np.all(total >= cost.bounds(shape))
    assert total[0] < 0.35 * total[-1]
    assert total[63] - total[31] < total[7] - total[0]


@pytest.mark.parametrize("model", [QWEN3_30B, QWEN3_32B, DEEPSEEK_V2_LITE], ids=lambda m: m.name)
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_verification_is_cheaper_than_as_many_decode_steps(model: Model, batch: int) -> None:
    cost = forward(model, "h200_sxm")
    context = 4000 * batch
    decode = cost.seconds(StepShape(sequences=batch, context_tokens=context))
    for width in (2, 4, 8):
        verify = cost.seconds(StepShape(sequences=batch, width=width, context_tokens=context))
        assert decode < verify < width * decode


def test_verification_reads_the_cache_once() -> None:
    """Not as width independent sequences would."""
    cost = forward(QWEN3_32B, "h200_sxm")
    decode = cost.attention(StepShape(sequences=32, context_tokens=32 * 16_000))["attention_decode"]
    verify = cost.attention(StepShape(sequences=32, width=4, context_tokens=32 * 16_000))["attention_decode"]
    apart = cost.attention(StepShape(sequences=128, context_tokens=128 * 16_000))["attention_decode"]
    assert verify < 1.1 * decode
    assert apart > 3 * decode


@pytest.mark.parametrize("tensor_parallel", [2, 4, 8])
@pytest.mark.parametrize("expert_parallel", [False, True])
def test_tensor_parallelism_gains_at_most_its_ranks(tensor_parallel: int, expert_parallel: bool) -> None:
    shape = StepShape(sequences=64, context_tokens=64 * 8000)
    one, many = forward(QWEN3_30B, "h200_sxm"), forward(QWEN3_30B, "h200_sxm", tensor_parallel, expert_parallel)
    assert one.seconds(shape) / tensor_parallel < many.seconds(shape) < one.seconds(shape)
    assert many.bounds(shape) >= one.bounds(shape) / tensor_parallel * (1 - 1e-12)
    assert many.families(shape)["collective"] > 0
    assert one.families(shape)["collective"] == 0


@given(a=st.floats(0, 1e3), b=st.floats(0, 1e3), exponent=st.floats(1, 50))
def test_norm_lies_between_maximum_and_sum(a: float, b: float, exponent: float) -> None:
    value = pnorm(a, b, exponent)
    assert max(a, b) <= value <= (a + b) * (1 + 1e-12)
    assert pnorm(a, b, np.inf) == max(a, b)


@given(flops=st.floats(0, 1e15), moved=st.floats(0, 1e12), parts=st.integers(1, 9))
def test_work_adds_up(flops: float, moved: float, parts: int) -> None:
    total = sum((Work(flops, moved) for _ in range(parts)), Work())
    scaled = parts * Work(flops, moved)
    assert (total.flops, total.bytes) == pytest.approx((scaled.flops, scaled.bytes))


def test_launches_count_every_layer() -> None:
    assert forward(QWEN3_32B, "h200_sxm").launches == 64 * (4 + 1 + 5) + 3
    assert forward(QWEN3_30B, "h200_sxm").launches == 48 * (3 + 1 + 5 + 6) + 3
    assert forward(QWEN3_32B, "h200_sxm", 2).launches == 64 * (4 + 1 + 5) + 3 + 2 * 64 + 2


def test_settings_without_effect_or_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="expert_parallel has no effect"):
        forward(QWEN3_32B, "h200_sxm", 2, True)
    with pytest.raises(ValueError, match="tensor_parallel must divide the 32 attention heads"):
        forward(QWEN3_30B, "h200_sxm", 3)
