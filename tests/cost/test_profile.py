"""Prices from a layer profile: a sum of its own rows at its own points, and laws between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.cost.host import read_engine
from sim.cost.lines import TICKS_PER_S
from sim.cost.profile import LayerProfile
from sim.cost.profile_lead import ExpectedLead
from sim.cost.profile_prices import ProfilePrices
from sim.cost.routing import Uniform
from tests.cost import profile_rows as own

ENGINE = replace(read_engine("vllm_0_19"), layer_host_s=0.0, eager_layer_host_s=0.0)
HOST = ENGINE.step_host_s


@pytest.fixture(scope="module")
def profile() -> LayerProfile:
    return LayerProfile.from_rows(own.rows(), own.LAYERS)


def prices(profile, **more) -> ProfilePrices:
    return ProfilePrices(profile, ENGINE, own.LAYERS, 2048, 1 << 20, **more)


def pass_s(tokens: int) -> float:
    each = sum(own.layer_s(name, tokens) for name in own.EACH) + 2 * own.layer_s("layernorm", tokens)
    return own.LAYERS * each + own.layer_s("embedding", tokens) + own.layer_s("final_layernorm", tokens)


def seconds(ticks: int) -> float:
    return ticks / TICKS_PER_S


@pytest.mark.parametrize("sequences", [1, 16, 64])
@pytest.mark.parametrize("context", [256, 1024])
def test_a_measured_decode_step_is_the_sum_of_its_rows(profile, sequences, context):
    step = pass_s(sequences) + own.row_s(sequences) + own.LAYERS * own.decode_s(sequences, context) + HOST
    assert seconds(prices(profile).decode(sequences, 0).at(sequences * context)) == pytest.approx(step, rel=2e-4)


@pytest.mark.parametrize("sequences", [0, 4, 64])
@pytest.mark.parametrize(("chunk", "history"), [(256, 0), (1024, 256)])
def test_a_measured_prefill_step_is_the_sum_of_its_rows(profile, sequences, chunk, history):
    pairs = chunk * history + chunk * (chunk + 1) // 2
    attention = own.mixed_s(chunk, history, sequences, 1024) if sequences else own.prefill_s(chunk, history)
    tokens = int(np.asarray(ENGINE.padded_tokens(sequences + chunk)))
    step = pass_s(tokens) + own.row_s(sequences + 1) + own.LAYERS * attention + HOST
    priced = prices(profile).mixed(0, sequences, sequences * 1024, (1, chunk, history, pairs, 1))
    assert seconds(priced) == pytest.approx(step, rel=1e-3)


def test_equal_prompts_are_one_beside_the_decodes_and_the_others_alone(profile):
    chunk, count = 256, 3
    pairs = count * chunk * (chunk + 1) // 2
    attention = own.mixed_s(chunk, 0, 4, 1024) + (count - 1) * own.prefill_s(chunk, 0)
    step = pass_s(4 + count * chunk) + own.row_s(4 + count) + own.LAYERS * attention + HOST
    priced = prices(profile).mixed(0, 4, 4 * 1024, (count, count * chunk, 0, pairs, count))
    assert seconds(priced) == pytest.approx(step, rel=1e-3)


def test_unequal_prompts_cost_between_equal_ones_and_a_single_one(profile):
    new, made = 1024, prices(profile)

    def step(*chunks: int) -> int:
        pairs = sum(chunk * (chunk + 1) // 2 for chunk in chunks)
        return made.mixed(0, 4, 4096, (len(chunks), sum(chunks), 0, pairs, 1))

    assert step(new) < step(new - 128, 128) < step(new // 2, new // 2)


def test_steps_are_padded_to_graphs_but_sample_no_padding(profile):
    step = pass_s(40) + own.row_s(33) + own.LAYERS * own.decode_s(33, 1024) + HOST
    assert seconds(prices(profile).decode(33, 0).at(33 * 1024)) == pytest.approx(step, rel=1e-3)


def test_the_scale_is_of_kernels_not_of_the_host(profile):
    base, double = (seconds(prices(profile, kernel_scale=scale).decode(16, 0).at(16_384)) - HOST for scale in (1, 2))
    assert double == pytest.approx(2 * base, rel=1e-6)
    with pytest.raises(ValueError, match="kernel_scale must be > 0"):
        prices(profile, kernel_scale=0.0)


def test_an_uncut_batch_is_not_done_before_its_longest(profile):
    """132 SMs and 8 KV heads: FlashAttention 2 cuts sequences in batches below 27."""
    assert profile.uncut_from == 27
    lead = 8000.0
    for sequences, chain in ((16, False), (64, True)):
        uniform, skewed = (
            prices(profile, lead_tokens=lambda _, lead=lead: lead).decode(sequences, 0).at(sequences * 1000)
            for lead in (0.0, lead)
        )
        extra_s = seconds(skewed - uniform)
        alone = own.LAYERS * (own.CHAIN_S_PER_TOKEN * 9000 - own.decode_s(sequences, 1000))
        rated = float(profile.straggler_s(sequences)) * lead
        assert extra_s == pytest.approx(alone if chain else rated, rel=1e-2)


def test_without_skewed_batches_nothing_straggles():
    bare = LayerProfile.from_rows(own.rows(skewed=False), own.LAYERS)
    with_lead = prices(bare, lead_tokens=lambda _: 5000.0).decode(64, 0).at(64_000)
    assert with_lead == prices(bare).decode(64, 0).at(64_000)


def test_decode_grows_with_context_and_batch_and_goes_on_past_the_grid(profile):
    made = prices(profile)
    contexts = np.arange(0, 1_000_000, 10_007)
    for sequences in (1, 5, 70, 200):
        assert (np.diff(made.decode(sequences, 0).durations(contexts)) > 0).all()
    at = [made.decode(sequences, 0).at(sequences * 2000) for sequences in range(1, 256, 9)]
    assert (np.diff(at) > 0).all()


def test_moe_blocks_are_taken_at_the_experts_that_routing_hits(profile):
    experts, per_token = 16, 2
    moe = LayerProfile.from_rows(own.with_experts(experts, per_token), own.LAYERS, Uniform())
    for tokens in (1, 8, 64):
        hit = experts * (1 - (1 - per_token / experts) ** tokens)
        added = float(moe.token_s(tokens) - profile.token_s(tokens))
        assert added == pytest.approx(own.LAYERS * own.experts_s(hit), rel=1e-6)
    with pytest.raises(ValueError, match="needs a routing"):
        LayerProfile.from_rows(own.with_experts(experts, per_token), own.LAYERS)


def test_drafts_are_refused(profile):
    made = prices(profile)
    for price in (lambda: made.decode(4, 3), lambda: made.mixed(3, 4, 400, (1, 16, 0, 136, 1)),
                  lambda: made.ragged(4, (2, 1), 400)):  # fmt: skip
        with pytest.raises(ValueError, match="prices no speculation"):
            price()


def test_a_profile_is_of_one_deployment():
    import pandas as pd

    both = pd.concat([own.rows(), own.rows(gpu="h200_sxm")])
    with pytest.raises(ValueError, match="of one gpu, got h100_sxm, h200_sxm"):
        LayerProfile.from_rows(both, own.LAYERS)


def test_a_profile_without_attention_is_refused():
    rows = own.rows()
    with pytest.raises(ValueError, match="full grid"):
        LayerProfile.from_rows(rows[rows["op"] != "attention_mixed"], own.LAYERS)


def test_lead_of_equal_requests_and_of_one_long_among_short():
    n = 50
    equal = ExpectedLead(np.full(n, 1000), np.ones(n, dtype=np.int64))
    assert equal(1) == 0.0
    assert equal(30) < 1.0
    long = ExpectedLead(np.where(np.arange(n) == 0, 9000, 1000), np.ones(n, dtype=np.int64))
    assert 0.5 * 8000 < long(256) < 8000
    assert long(4) < long(64)
