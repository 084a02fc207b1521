"""Drafters by hand: passes, weights, KV and verified tokens, on Llama-3.1-8B or a model that has what one needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import Cluster, ConstantRate, DraftModel, Fixed, Speculation, load_model, read_engine, simulate, step_cost
from sim.cost.drafting import Drafting
from sim.cost.lines import TICKS_PER_S
from sim.cost.shape import StepShape
from sim.cost.times import StepTimes
from sim.draws import key
from sim.footprint import weight_bytes_total
from sim.memory import Resident
from sim.speculation.eagle import Eagle
from sim.speculation.mtp import Mtp
from sim.speculation.ngram import NGram
from sim.speculation.parallel import Medusa, ParallelDraft
from sim.speculation.request_length import Oracle
from sim.speculation.tree import RatePerRank, best_tree, reachable_nodes
from tests.deployments import experiment, workload

H, VOCAB, FFN, KV = 4096, 128256, 14336, 1024
LAYER = H * (H + 2 * KV) + H * H + 3 * H * FFN
NORMS = 3 * H

DRAFTERS = {
    "draft model": (DraftModel(), 3),
    "n-gram": (NGram(match_rate=0.4), 3),
    "EAGLE": (Eagle(version=1), 3),
    "EAGLE-2": (Eagle(version=1, top_k=4, nodes=15), 4),
    "EAGLE-3": (Eagle(vocab=32000), 3),
    "Medusa": (Medusa(heads=4), 4),
    "P-EAGLE": (ParallelDraft(layers=4, features=3, block_tokens=16), 5),
    "DFlash": (ParallelDraft(layers=5, features=5, block_tokens=16, block_only=True), 7),
}


def llama():
    return load_model("llama31_8b", "model")


def deployment(drafter, drafts, model="llama31_8b", **changes):
    speculation = Speculation(drafter=drafter, length=Fixed(drafts=drafts), acceptance=ConstantRate(rate=0.6))
    changes = {"cluster": Cluster(gpu="h100_sxm"), "workload": workload(40), **changes}
    return experiment(model, speculation=speculation, **changes)


@pytest.mark.parametrize(
    ("drafter", "drafts", "drafting", "verified", "lookahead"),
    [
        (DraftModel(), 4, Drafting(catch_up=True, passes=3), 5, 4),
        (NGram(match_rate=0.4), 4, Drafting(host_s=15e-6, sequence_host_s=1.1e-6), 5, 0),
        (Eagle(version=1), 1, Drafting(catch_up=True), 2, 1),
        (Eagle(), 4, Drafting(catch_up=True, passes=3), 5, 4),
        (Eagle(top_k=4, nodes=15), 3, Drafting(catch_up=True, passes=2, pass_width=4, pass_rows=4), 16, 36),
        (Eagle(top_k=3), 2, Drafting(catch_up=True, passes=1, pass_width=3, pass_rows=3), 13, 12),
        (Mtp(), 2, Drafting(catch_up=True, passes=1), 3, 2),
        (Medusa(heads=4), 4, Drafting(passes=1), 5, 0),
        (ParallelDraft(layers=4, features=3, block_tokens=8), 5,
         Drafting(catch_up=True, first_extra=4, first_rows=5), 6, 5),
        (ParallelDraft(layers=5, features=5, block_tokens=8, block_only=True), 7,
         Drafting(catch_up=True, first_rows=7), 8, 7),
    ],
)  # fmt: skip
def test_passes_verified_tokens_and_slots(drafter, drafts, drafting, verified, lookahead):
    assert drafter.drafting(drafts) == drafting
    assert drafter.verify_tokens(drafts) == verified
    assert drafter.lookahead_tokens(drafts) == lookahead


@pytest.mark.parametrize("drafter", [drafter for drafter, _ in DRAFTERS.values()], ids=DRAFTERS)
def test_no_drafts_leave_plain_decoding(drafter):
    assert drafter.verify_tokens(0) == 1
    assert drafter.lookahead_tokens(0) == 0
    assert drafter.drafting(0).passes == 0


@pytest.mark.parametrize(
    ("drafter", "params", "kv_layers"),
    [
        (Eagle(version=1), 2 * H * H + LAYER + NORMS, 1),
        (Eagle(vocab=32000), 3 * H * H + H * (H + 2 * KV) + LAYER + NORMS + 32000 * H, 1),
        (Medusa(heads=4), 4 * H * H + 4 * VOCAB * H + H, 0),
        (ParallelDraft(layers=5, features=5, block_tokens=16), 5 * H * H + 5 * (LAYER + 2 * H) + H, 5),
    ],
    ids=["EAGLE", "EAGLE-3", "Medusa", "DFlash"],
)
def test_weights_and_kv_of_heads(drafter, params, kv_layers):
    head = drafter.draft_for(llama())
    assert weight_bytes_total(head) == 2 * params
    assert Resident(head, 1).token_bytes == kv_layers * 2 * KV * 2
    assert Resident(head, 8).token_bytes == kv_layers * 2 * 128 * 2


def test_mtp_module_of_a_moe_model_is_a_moe_layer():
    target = load_model("deepseek_v3", "model")
    module = Mtp().draft_for(target)
    experts = 256 * 3 * 7168 * 2048
    attention = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    rest = 2 * 7168 * 7168 + attention + 256 * 7168 + 3 * 7168 * 2048
    assert weight_bytes_total(module) == pytest.approx(experts + rest, rel=1e-4)
    assert Resident(module, 8).token_bytes == 576 * 2


def test_more_modules_hold_more_but_cost_the_same_pass():
    target = replace(load_model("deepseek_v3", "model"), mtp_layers=3)
    one, three = (Resident(Mtp(modules=n).draft_for(target), 8) for n in (1, 3))
    assert three.weight_bytes == 3 * one.weight_bytes
    assert three.token_bytes == 3 * one.token_bytes


def test_a_reduced_vocabulary_is_what_makes_eagle3_cheap():
    small, whole = (step_cost(deployment(Eagle(vocab=vocab), 3)) for vocab in (32000, 0))
    shape = StepShape(sequences=1, context_tokens=400)
    saved_s = float(whole.draft_pass_s(shape)) - float(small.draft_pass_s(shape))
    assert saved_s > 0.8 * (VOCAB - 32000) * H * 2 / 3.35e12


def test_only_the_first_pass_fuses_hidden_states():
    cost = step_cost(deployment(Eagle(), 3))
    shape = StepShape(sequences=4, width=4, context_tokens=1600)
    one, two = (
        float(replace(cost, drafting=Drafting(catch_up=True, passes=passes)).families(shape)["draft"])
        for passes in (0, 1)
    )
    assert float(cost.fusion_s(16)) >= 3 * H * H * 2 / 3.35e12
    assert one > two - one


@pytest.mark.parametrize(("drafter", "drafts"), DRAFTERS.values(), ids=DRAFTERS)
def test_steps_in_ticks_equal_the_cost(drafter, drafts):
    engine = replace(read_engine("vllm_0_10"), round_host_s=1.0e-3, draft_token_host_s=2.0e-6)
    cost = step_cost(deployment(drafter, drafts, engine=engine))
    times = StepTimes(lambda _: cost, drafts, 8192, 1 << 20)
    for sequences, prompt, completed in ((0, 300, 1), (9, 500, 0), (60, 1000, 1)):
        shape = StepShape(
            sequences=sequences, width=cost.width, context_tokens=sequences * 700, chunks=1, prefill_tokens=prompt,
            prefill_pairs=prompt * (prompt + 1) // 2, completed=completed,
        )  # fmt: skip
        ticks = times.mixed(drafts, sequences, sequences * 700, (1, prompt, 0, prompt * (prompt + 1) // 2, completed))
        assert ticks / TICKS_PER_S == pytest.approx(float(cost.seconds(shape)), rel=3e-3)
    decoding = StepShape(sequences=9, width=cost.width, context_tokens=6300)
    assert times.decode(9, drafts).at(6300) / TICKS_PER_S == pytest.approx(float(cost.seconds(decoding)), rel=2e-3)


@pytest.mark.parametrize(("drafter", "drafts"), DRAFTERS.values(), ids=DRAFTERS)
def test_every_drafter_runs_to_the_end(drafter, drafts):
    result = simulate(deployment(drafter, drafts))
    assert min(result.recorder.finish) > 0


def test_eager_passes_cost_their_launches():
    graphs, eager = (step_cost(deployment(DraftModel(eager=eager), 3)) for eager in (False, True))
    shape = StepShape(sequences=1, context_tokens=400)
    assert float(eager.draft_pass_s(shape)) == pytest.approx(16 * graphs.engine.eager_layer_host_s)
    assert float(eager.draft_pass_s(shape)) > float(graphs.draft_pass_s(shape))
    assert float(eager.families(shape)["gemm"]) == float(graphs.families(shape)["gemm"])


def test_a_draft_on_one_gpu_weighs_all_on_that_gpu():
    cluster = Cluster(gpu="h100_sxm", tensor_parallel=4)
    one, all_four = (step_cost(deployment(Eagle(tensor_parallel=n), 3, cluster=cluster)).draft for n in (1, 0))
    assert (one.tensor_parallel, all_four.tensor_parallel) == (1, 4)
    assert Resident(one.model, 1).weight_bytes == 4 * Resident(all_four.model, 4).weight_bytes
    with pytest.raises(ValueError, match=r"must be 1 or cluster\.tensor_parallel = 4, got 2"):
        step_cost(deployment(Eagle(tensor_parallel=2), 3, cluster=cluster))


def test_matches_come_at_their_rate_and_at_the_same_places_for_every_length():
    offers = NGram(match_rate=0.4).offers()
    keys, positions = key(3, "acceptance"), np.arange(20_000)
    three = offers(keys, positions, 3)
    assert set(np.unique(three)) == {0, 3}
    assert np.mean(three > 0) == pytest.approx(0.4, abs=0.015)
    assert np.array_equal(three > 0, offers(keys, positions, 5) > 0)
    assert NGram(match_rate=1.0).offers() is None


def test_a_miss_decodes_plainly():
    rare = simulate(deployment(NGram(match_rate=1e-9, host_s=0.0, sequence_host_s=0.0), 3))
    assert sum(rare.recorder.drafted) == 0


def test_chain_is_the_tree_of_one_child():
    rates = [[0.7], [0.6], [0.5]]
    assert best_tree(rates, 3, 3) == pytest.approx([0.7, 0.42, 0.21])


def test_tree_by_hand():
    """Four nodes: root's first child .6, its first child .36, root's second child .3, the third in the chain .216."""
    rates = [[0.6, 0.3], [0.6, 0.3], [0.6, 0.3]]
    assert best_tree(rates, 4, 3) == pytest.approx([0.9, 0.36, 0.216])
    assert RatePerRank(rates=rates, nodes=4).mean_accepted(3) == pytest.approx(0.9 + 0.36 + 0.216)
    assert best_tree(rates, 4, 1) == pytest.approx([0.9])


def test_more_nodes_never_get_less_far_and_reach_the_full_tree():
    rates = [[0.5, 0.2, 0.1], [0.4, 0.3, 0.1], [0.6, 0.1]]
    means = [best_tree(rates, nodes, 3).sum() for nodes in range(1, 40)]
    assert np.all(np.diff(means) >= -1e-12)
    assert best_tree(rates, 100, 3) == pytest.approx([0.8, 0.8 * 0.8, 0.8 * 0.8 * 0.7])
    assert (reachable_nodes(4, 0), reachable_nodes(4, 1), reachable_nodes(4, 3)) == (0, 4, 36)


def speculation(drafter, drafts):
    return Speculation(drafter=drafter, length=Fixed(drafts=drafts), acceptance=ConstantRate(rate=0.5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Eagle(hidden=2048).draft_for(llama()), "hidden must be 4096"),
        (lambda: ParallelDraft(layers=1, features=3, block_tokens=8, hidden=5120).draft_for(llama()), "hidden must be"),
        (lambda: Mtp().draft_for(llama()), "modules must be <= 0.*choose another drafter"),
        (lambda: Mtp(modules=2).draft_for(load_model("deepseek_v3", "model")), "modules must be <= 1"),
        (lambda: speculation(Medusa(heads=4), 5), "asks for 5 drafts, but Medusa proposes at most 4"),
        (lambda: speculation(ParallelDraft(layers=5, features=5, block_tokens=8), 8), "at most 7"),
        (lambda: Eagle(version=2), "version must be 1 or 3"),
        (lambda: Eagle(version=1, vocab=32000), "vocab has no effect"),
        (lambda: Eagle(nodes=8), "nodes has no effect in a chain"),
        (lambda: NGram(match_rate=0.0), "match_rate must lie in"),
        (lambda: NGram(match_rate=0.5, host_s=-1.0), "host_s must be >= 0"),
        (lambda: Medusa(heads=0), "heads must lie in"),
        (lambda: ParallelDraft(layers=0, features=3, block_tokens=8), "layers must be >= 1"),
        (lambda: RatePerRank(rates=[[0.7, 0.4]], nodes=3), "sum to at most 1"),
        (lambda: RatePerRank(rates=[[0.1, 0.4]], nodes=3), "must not increase"),
        (lambda: Speculation(drafter=Eagle(top_k=4), length=Oracle(most=3), acceptance=ConstantRate(rate=0.5)),
         "a tree of drafts cannot"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_rounds_cost_the_host_more_than_plain_steps():
    """1 ms per round and 2 us for each of 9 x 3 draft tokens."""
    free = replace(read_engine("vllm_0_10"), round_host_s=0.0, draft_token_host_s=0.0)
    engine = replace(free, round_host_s=1.0e-3, draft_token_host_s=2.0e-6)
    less, more = (step_cost(deployment(Eagle(), 3, engine=e)) for e in (free, engine))
    shape = StepShape(sequences=9, width=4, context_tokens=6300)
    assert float(more.seconds(shape)) - float(less.seconds(shape)) == pytest.approx(1.0e-3 + 27 * 2.0e-6)
    plain = replace(more, width=1, drafting=None)
    assert float(plain.seconds(replace(shape, width=1))) == pytest.approx(
        float(replace(less, width=1, drafting=None).seconds(replace(shape, width=1)))
    )
