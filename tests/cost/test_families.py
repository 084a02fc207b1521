"""Each op family alone: the figures one can work out by hand, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.attention import RankAttention
from sim.cost.comm import Collectives
from sim.cost.dense import linears_work
from sim.cost.moe import RankExperts
from sim.cost.routing import Uniform
from sim.cost.shape import StepShape
from sim.hardware import read_link
from sim.layers import Ffn
from sim.model import Attention
from tests.cost.examples import on

GQA = Attention(heads=32, kv_heads=4, head_dim=128)
MLA = Attention(kind="mla", heads=128, kv_heads=1, head_dim=192, value_dim=128, q_rank=1536, kv_rank=512, rope_dim=64)


def rank(attention: Attention, tensor_parallel: int = 1) -> RankAttention:
    state_bytes = 2.0 if attention.kind == "linear" else 0.0
    return RankAttention(attention, tensor_parallel, 2.0, state_bytes)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("tokens", [1, 64, 4096])
def test_one_expert_is_a_dense_ffn(gated: bool, tokens: int) -> None:
    one = RankExperts(Ffn(kind="moe", experts=1, experts_per_token=1, expert_width=768, gated=gated), 2048, 2.0)
    moe = one.work(Uniform().distinct(1, 1, tokens, 1, 0), tokens)
    dense = linears_work(Ffn(width=768, gated=gated).linears(2048), tokens, 2.0, 1)
    assert moe.flops == dense.flops
    # The dense one writes its activation in a kernel of its own: 1 of 3 inner widths.
    assert moe.bytes == pytest.approx(dense.bytes)


@given(tokens=st.integers(1, 4096), width=st.integers(1, 9))
def test_uniform_routing_takes_width_as_tokens(tokens: int, width: int) -> None:
    routing = Uniform()
    distinct = routing.distinct(128, 8, tokens, width, 0)
    assert distinct == routing.distinct(128, 8, tokens * width, 1, 0) == routing.distinct(128, 8, 0, 1, tokens * width)
    assert 8 * (1 - 1e-12) <= distinct <= min(128, 8 * tokens * width) * (1 + 1e-12)


def test_width_1_is_decode_worked_out_by_hand() -> None:
    work = rank(GQA).decode_work(StepShape(sequences=8, width=1, context_tokens=8000), 64)
    attended = 8000 + 8
    assert work.flops == 4 * attended * 32 * 128
    assert work.bytes == attended * 4 * 256 * 2 + 8 * 32 * 256 * 2


def test_the_cache_is_read_again_only_past_a_tile_of_queries() -> None:
    def cache_bytes(width: int) -> float:
        shape = StepShape(sequences=1, width=width, context_tokens=100_000)
        queries = width * 32 * 256 * 2
        return (rank(GQA).decode_work(shape, 64).bytes - queries) / (100_000 + width)

    # 8 query heads share a KV head: 8 x 8 rows fill one tile of 64.
    assert [cache_bytes(width) / cache_bytes(1) for width in (2, 8, 9, 16, 17)] == [1, 1, 2, 2, 3]
    once = [rank(GQA).decode_work(StepShape(sequences=1, width=width, context_tokens=0)).flops for width in (1, 3)]
    assert once == [4 * 32 * 128, 4 * 32 * 128 * 6]


def test_cache_is_cut_over_ranks_until_each_holds_one_head() -> None:
    assert [rank(GQA, ranks).token_bytes for ranks in (1, 2, 4, 8, 16)] == [2048, 1024, 512, 512, 512]
    assert [rank(MLA, ranks).token_bytes for ranks in (1, 8)] == [1152, 1152]


def test_mla_is_absorbed_at_decode_and_multiplied_out_in_prefill() -> None:
    decode = rank(MLA).decode_work(StepShape(sequences=1, context_tokens=999))
    assert decode.flops == 2 * 1000 * 128 * (512 + 64 + 512)
    prefill = rank(MLA).prefill_work(StepShape(chunks=1, prefill_tokens=1000, prefill_pairs=500_500))
    assert prefill.flops == 2 * 500_500 * 128 * (192 + 128)
    later = rank(MLA).prefill_work(
        StepShape(chunks=1, prefill_tokens=10, prefill_history_tokens=1000, prefill_pairs=10_055)
    )
    assert later.flops == 2 * 10_055 * 128 * (192 + 128) + 2 * 1000 * 512 * 128 * (128 + 128)


def test_mla_verification_nears_the_ridge_as_in_the_kernels() -> None:
    """All 128 heads on one GPU: about the H100's 295 FLOPs per byte at width 1; at TP8 only from width 7 on."""

    def intensity(ranks: int, width: int) -> float:
        work = rank(MLA, ranks).decode_work(StepShape(sequences=64, width=width, context_tokens=64 * 20_000))
        return work.flops / work.bytes

    assert 200 < intensity(1, 1) < 295 < intensity(1, 2)
    assert intensity(8, 6) < 200 < intensity(8, 8)


@pytest.mark.parametrize("kind", ["sliding", "chunked"])
def test_a_window_caps_the_context(kind: str) -> None:
    windowed = rank(Attention(kind=kind, heads=32, kv_heads=4, head_dim=128, window_tokens=1024))
    work = [windowed.decode_work(StepShape(sequences=4, context_tokens=4 * c)) for c in (512, 1024, 2048, 90_000)]
    assert work[0].bytes < work[1].bytes == work[2].bytes == work[3].bytes
    full = rank(GQA).decode_work(StepShape(sequences=4, context_tokens=4 * 512))
    assert (work[0].flops, work[0].bytes) == (full.flops, full.bytes)
    pairs = 8192 * 8193 // 2
    prompt = StepShape(chunks=1, prefill_tokens=8192, prefill_pairs=pairs)
    assert windowed.prefill_work(prompt).flops < 0.26 * rank(GQA).prefill_work(prompt).flops


def test_linear_attention_has_a_state_and_no_context() -> None:
    linear = rank(Attention(kind="linear", heads=32, kv_heads=16, head_dim=128, conv_kernel=4))
    short, long = (linear.decode_work(StepShape(sequences=8, context_tokens=c)) for c in (0, 8_000_000))
    assert (short.flops, short.bytes) == (long.flops, long.bytes)
    assert short.bytes > 8 * 2 * linear.sequence_state_bytes
    # A verified position leaves its state behind: one read, width writes.
    wide = linear.decode_work(StepShape(sequences=8, width=4))
    assert wide.bytes - short.bytes > 8 * 3 * linear.sequence_state_bytes


def test_sparse_attention_reads_its_choice_and_scores_the_rest() -> None:
    sparse = rank(
        Attention(kind="sparse", heads=32, kv_heads=4, head_dim=128, top_k_tokens=2048, index_heads=64, index_dim=128)
    )
    near, far = (sparse.decode_work(StepShape(sequences=1, context_tokens=c)) for c in (50_000, 100_000))
    assert far.bytes - near.bytes == 50_000 * 128 * 2
    assert far.flops - near.flops == 2 * 50_000 * 64 * 128
    assert far.bytes < 0.2 * rank(GQA).decode_work(StepShape(sequences=1, context_tokens=100_000)).bytes


def test_small_batches_pay_one_wave_and_large_ones_by_wave() -> None:
    constants, peaks = on("h200_sxm")
    efficiency = constants.attention_decode

    def seconds(sequences: int) -> float:
        shape = StepShape(sequences=sequences, context_tokens=sequences)
        apart = efficiency.fixed_s + efficiency.sequence_s * sequences
        return float(rank(GQA).decode(shape, efficiency, peaks)) - apart

    assert seconds(33) == pytest.approx(seconds(1), rel=0.05)
    wave_s = efficiency.wave_s + efficiency.wave_width_s
    assert seconds(330) - seconds(33) == pytest.approx(9 * wave_s, rel=0.25)


def test_all_reduce_is_the_measured_line_on_its_own_link() -> None:
    constants, _ = on("h200_sxm")
    group = Collectives(constants.allreduce, read_link("nvlink4"), 8)
    assert group.all_reduce(0) == 0
    assert group.all_reduce(2) == pytest.approx(constants.allreduce.latency_s[8], rel=1e-3)
    slope = (group.all_reduce(2_000_000_000) - group.all_reduce(1_000_000_000)) / 1e9
    assert 2 * 7 / 8 / slope == pytest.approx(constants.allreduce.link_efficiency[8] * 450e9, rel=1e-6)
    assert group.all_gather(1_000_000_000) < 0.51 * group.all_reduce(1_000_000_000)
    assert Collectives(constants.allreduce, read_link("nvlink4"), 1).all_reduce(np.array([5, 6])).tolist() == [0, 0]


def test_a_slower_link_costs_more() -> None:
    constants, _ = on("h200_sxm")
    message = np.array([2, 4096, 10_000_000])
    near = Collectives(constants.allreduce, read_link("nvlink4"), 4).all_reduce(message)
    weak = Collectives(constants.allreduce, read_link("nvlink3"), 4).all_reduce(message)
    far = Collectives(constants.allreduce, read_link("infiniband_ndr"), 4).all_reduce(message)
    assert np.all(near < weak)
    assert np.all(weak < far)
