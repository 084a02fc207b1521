"""Prices of ranks in lockstep: those of equal ranks are the step cost's, and what the others do matters."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Analytic, Uniform, load_model, read_engine
from sim.cost.comm import Collectives
from sim.cost.constants import exchange_over
from sim.cost.lockstep import IDLE, RankLoad
from sim.cost.lockstep_times import LockstepTimes
from sim.cost.pipeline_times import PipelineTimes
from sim.cost.routing import PowerLaw, Routing
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.hardware import read_gpu, read_link
from sim.speculation.mtp import Mtp
from sim.speculation.ngram import NGram

GPU = read_gpu("h200_sxm")
LINK = read_link(GPU.link)
RANKS = 4
NOTHING = (0, 0, 0, 0, 0)
PROMPT = (1, 600, 0, 600 * 601 // 2, 1)
LATER = (2, 700, 300, 400 * 350 + 300 * 150 + 300 * 300, 1)


def forward(model, data_parallel=RANKS, routing=None, tensor_parallel=1, expert_parallel=True):
    whole = expert_parallel and model.is_moe
    return Analytic().forward(model, GPU, LINK, tensor_parallel, whole, routing or Uniform(), data_parallel)


@cache
def deployment(drafter="none", overlap=(), pads_prompts=True):
    """The step cost by draft length, and the lockstep times."""
    model = load_model("deepseek_v2_lite" if drafter != "mtp" else "glm45_air", "model")
    target = forward(model, routing=Uniform(overlap=list(overlap)))
    cost = StepCost(target=target, engine=replace(read_engine("vllm_0_10"), pads_prompts=pads_prompts))
    made = {"none": None, "mtp": Mtp(), "ngram": NGram(match_rate=1.0)}[drafter]
    if made is None:
        return (lambda _: cost), LockstepTimes(lambda _: cost, 0, 2048, 500_000)
    draft = made.draft_for(model) if drafter == "mtp" else None
    if draft is not None:
        cost = replace(cost, draft=forward(draft, routing=target.routing))

    def at(drafts):
        return replace(cost, width=made.verify_tokens(drafts), drafting=made.drafting(drafts))

    return at, LockstepTimes(at, 3, 2048, 500_000)


def product_of(*batches):
    return [(*batch, moments) for batch in batches for moments in (NOTHING, PROMPT, LATER)]


@pytest.mark.parametrize("drafter", ["none", "mtp", "ngram"])
@pytest.mark.parametrize("overlap", [(), (0.4, 0.3)])
@pytest.mark.parametrize(
    ("sequences", "context", "moments"),
    [(0, 0, PROMPT), (0, 0, LATER), *product_of((1, 700), (33, 41_000), (300, 300_000))],
)
def test_equal_ranks_take_the_step_cost(drafter, overlap, moments, sequences, context):
    at, times = deployment(drafter, overlap)
    for drafts in (1, 3) if drafter != "none" else (0,):
        shape = StepShape(
            sequences=sequences, width=at(drafts).width, context_tokens=context, chunks=moments[0],
            prefill_tokens=moments[1], prefill_history_tokens=moments[2], prefill_pairs=moments[3],
            completed=moments[4],
        )  # fmt: skip
        ticks = times.step([RankLoad(sequences, drafts, (), moments)] * RANKS, [context] * RANKS)
        assert ticks * 1e-12 == pytest.approx(float(at(drafts).seconds(shape)), rel=3e-4)


@settings(max_examples=30, deadline=None)
@given(
    loads=st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 3), st.sampled_from([NOTHING, NOTHING, PROMPT, LATER])),
        min_size=RANKS, max_size=RANKS,
    ),
    steps=st.integers(1, 5),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_many_steps_are_single_steps(loads, steps, seed):
    _, times = deployment("mtp")
    ranks = [RankLoad(sequences, 2, (), moments) for sequences, _, moments in loads]
    if not any(rank.busy for rank in ranks):
        return
    rng = np.random.default_rng(seed)
    context = [np.sort(rng.integers(0, 400_000, steps)) for _ in ranks]
    together = times.steps(ranks, context)
    assert together.tolist() == [times.step(ranks, [int(c[i]) for c in context]) for i in range(steps)]


def test_a_step_waits_for_the_slowest_rank_and_pads_to_the_fullest():
    _, times = deployment()
    small, large = RankLoad(8), RankLoad(200)
    alone = times.step([small] * RANKS, [8_000] * RANKS)
    mixed = times.step([small] * (RANKS - 1) + [large], [8_000] * (RANKS - 1) + [200_000])
    full = times.step([large] * RANKS, [200_000] * RANKS)
    assert alone < mixed == full, "with graphs all pad to the fullest, and the slowest is as slow as all"
    idle = times.step([IDLE] * (RANKS - 1) + [large], [0] * (RANKS - 1) + [200_000])
    assert idle == full


def test_without_a_graph_nobody_pads():
    """A prompt of 600 tokens has no graph, so its step has none anywhere, and the experts see the tokens there are."""
    _, times = deployment()
    prompt = RankLoad(0, 0, (), PROMPT)
    one = times.step([prompt, IDLE, IDLE, IDLE], [0] * RANKS)
    all_four = times.step([prompt] * RANKS, [0] * RANKS)
    assert one < all_four
    decode = times.step([RankLoad(8)] * RANKS, [8_000] * RANKS)
    beside = times.step([prompt] + [RankLoad(8)] * 3, [0] + [8_000] * 3)
    assert beside > decode


def test_engines_that_pad_decoding_alone_compute_less_beside_a_prompt():
    """SGLang gathers the tokens that there are as soon as one rank prefills."""
    assert not read_engine("sglang_0_5").pads_prompts
    padded, exact = (deployment(pads_prompts=pads)[1] for pads in (True, False))
    prompt, small, large = RankLoad(0, 0, (), (1, 200, 0, 20_100, 1)), RankLoad(8), RankLoad(200)
    beside = [times.step([prompt, small, small, small], [0, 100, 100, 100]) for times in (padded, exact)]
    alone = [times.step([large, small, small, small], [100] * RANKS) for times in (padded, exact)]
    assert beside[0] > beside[1]
    assert alone[0] == alone[1]


def test_ragged_rounds_cost_between_the_whole_ones():
    _, times = deployment("mtp")
    low, high = (times.step([RankLoad(20, drafts)] * RANKS, [20_000] * RANKS) for drafts in (1, 3))
    some = times.step([RankLoad(20, 3, (20, 12, 5))] * RANKS, [20_000] * RANKS)
    assert low < some < high


def test_exchange_grows_with_tokens_and_group():
    model = load_model("qwen3_30b_a3b", "model")
    four, eight = forward(model, 4), forward(model, 8)
    small, large = (float(four.shared_tokenwise(0, 1, tokens)["exchange"]) for tokens in (64, 4096))
    assert 0 < small < large
    assert float(eight.shared_tokenwise(0, 1, 4096)["exchange"]) > large * 0.9
    layer_s = large / model.layer_count
    assert four.constants.exchange is not None
    group = Collectives(four.constants.exchange, LINK, 4)
    gathered = 4096 * (model.hidden + 128) * 2
    assert layer_s == pytest.approx(float(group.all_gather(gathered) + group.all_gather(4096 * model.hidden * 2)))


def test_no_step_beats_the_bounds_and_sharing_experts_helps():
    """Eight ranks that share experts load an eighth of them each."""
    model = load_model("qwen3_30b_a3b", "model")
    shape = StepShape(sequences=32, context_tokens=32 * 2000)
    one, eight = forward(model, 1, expert_parallel=False), forward(model, 8)
    assert eight.seconds(shape) >= eight.bounds(shape)
    assert eight.families(shape)["experts"] < one.families(shape)["experts"]
    assert eight.families(shape)["attention_decode"] == one.families(shape)["attention_decode"]
    assert eight.distinct_experts(shape) > one.distinct_experts(shape)


def test_the_busiest_rank_sets_the_time():
    model = load_model("qwen3_30b_a3b", "model")
    shape = StepShape(sequences=64, context_tokens=64 * 100)
    even, skewed = (
        forward(model, 8, routing).families(shape)["experts"] for routing in (Uniform(), PowerLaw(exponent=1.2))
    )
    assert skewed > even


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("qwen3_32b", 1, 2, True, 0), r"data_parallel must be 1 for the dense Qwen3-32B, got 2.*cluster\.replicas"),
        (("qwen3_30b_a3b", 3, 1, False, 0), "tensor_parallel must divide the 32 attention heads of .*, got 3"),
        (("mixtral_8x7b", 1, 16, True, 0), "must be <= the 8 experts of .* under expert_parallel, got 16"),
        (("qwen3_30b_a3b", 1, 6, True, 2), "must make the 128 experts of .* a multiple of the 6 GPUs .* got 2; take 4"),
        (("qwen3_30b_a3b", 1, 5, False, 0), "must divide the expert width 768 of .*, got 5; set expert_parallel"),
    ],
)
def test_what_no_framework_runs_is_refused(change, message):
    name, tensor_parallel, data_parallel, whole, redundant = change
    routing: Routing = Uniform(redundant_experts=redundant)
    with pytest.raises(ValueError, match=message):
        Analytic().forward(load_model(name, "model"), GPU, LINK, tensor_parallel, whole, routing, data_parallel)


def test_kv_heads_divide_the_group_or_are_copied():
    model = load_model("qwen3_30b_a3b", "model")
    for ranks in (1, 2, 4, 8, 16):
        forward(model, 1, tensor_parallel=ranks, expert_parallel=False)
    seven = load_model("qwen2_0_5b", "model")
    with pytest.raises(ValueError, match=r"must divide the 2 KV heads of .* or be a multiple of them, got 7"):
        forward(seven, 1, tensor_parallel=7)


def test_stages_add_up_to_the_pass():
    """A pipeline without hops takes as long for one batch as one GPU, but for rounding."""
    cost = StepCost(target=forward(load_model("llama31_8b", "model"), 1), engine=read_engine("vllm_0_10"))
    for moments, sequences, context in ((NOTHING, 40, 60_000), (PROMPT, 10, 9_000), (LATER, 0, 0)):
        whole = PipelineTimes(cost, 1, LINK, 2048, 500_000).stages(sequences, context, moments)
        cut = PipelineTimes(cost, 4, LINK, 2048, 500_000)
        assert sum(cut.stages(sequences, context, moments)) == pytest.approx(whole[0], rel=1e-9)
        shape = StepShape(
            sequences=sequences, context_tokens=context, chunks=moments[0], prefill_tokens=moments[1],
            prefill_history_tokens=moments[2], prefill_pairs=moments[3], completed=moments[4],
        )  # fmt: skip
        assert whole[0] * 1e-12 == pytest.approx(float(cost.seconds(shape)), rel=3e-4)
    hidden = 4096 * 2 * 2
    assert cut.send(1024) - cut.send(512) == pytest.approx(512 * hidden / (cut_bandwidth(cost)) * 1e12, rel=1e-6)


def cut_bandwidth(cost):
    return Collectives(exchange_over(LINK.kind), LINK, 2).bus_bytes_per_s


def test_the_exchange_is_nccls_and_slows_down_with_the_kernels():
    """nccl-tests on H200, 8 GPUs: 1 MiB gathered in 17.0 us, 64 MiB in 206 us."""
    group = Collectives(exchange_over("nvlink"), LINK, 8)
    assert float(group.all_gather(2**20)) == pytest.approx(17.0e-6, rel=0.2)
    assert float(group.all_gather(2**26)) == pytest.approx(206e-6, rel=0.2)
    assert exchange_over("xgmi") is None
    model = load_model("qwen3_30b_a3b", "model")
    slow = Analytic(kernel_factor=2.0).forward(model, GPU, LINK, 1, True, Uniform(), RANKS)
    plain, slower = (float(cost.shared_tokenwise(0, 1, 64)["exchange"]) for cost in (forward(model), slow))
    assert slower == pytest.approx(2 * plain)
