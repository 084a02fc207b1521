"""KV memory: a case worked by hand, and what must move it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim import ChunkedPrefill, Cluster, InfeasibleError, load_model, read_engine
from sim.hardware import resolve
from sim.memory import Resident, kv_layout


def layout(model="llama31_8b", scheduler=None, lookahead=0, **cluster):
    cluster = Cluster(gpu="h100_sxm", **cluster)
    gpu, _ = resolve(cluster)
    residents = [Resident(load_model(model, "model"), cluster.tensor_parallel)]
    return kv_layout(residents, gpu, cluster, read_engine("vllm_0_10"), scheduler or ChunkedPrefill(), lookahead)


def test_llama_8b_on_one_h100():
    """16.06 GB of weights; 131,072 bytes of KV per token; about 410,000 tokens fit, as vLLM reports for this pair."""
    kv = layout()
    assert kv.block_bytes == 131072 * 16
    assert 380_000 < kv.blocks * kv.block_tokens < 440_000


def test_tensor_parallel_cuts_kv_heads_until_each_rank_has_one():
    one, eight, sixteen = (Resident(load_model("llama31_8b", "model"), tp).token_bytes for tp in (1, 8, 16))
    assert eight == one / 8
    assert sixteen == eight


def test_latent_caches_are_copied_to_every_rank():
    assert Resident(load_model("deepseek_v3", "model"), 8).token_bytes == 576 * 61 * 2


def test_windows_and_states_do_not_grow_with_the_context():
    windows = Resident(load_model("gpt_oss_20b", "model"), 1)
    full = load_model("gpt_oss_20b", "model")
    assert windows.token_bytes == 12 * 2 * 8 * 64 * full.kv_bytes
    assert windows.sequence_bytes == 12 * 2 * 8 * 64 * full.kv_bytes * 128
    assert Resident(load_model("qwen3_next_80b_a3b", "model"), 2).sequence_bytes > 0


def test_bigger_steps_leave_less_kv():
    small, large = (layout(scheduler=ChunkedPrefill(max_batched_tokens=tokens)) for tokens in (2048, 16384))
    assert large.blocks < small.blocks
    assert layout(memory_utilization=0.8).blocks < small.blocks


def test_given_blocks_are_taken_as_they_are():
    assert layout(kv_blocks=1234).blocks == 1234


def test_lookahead_counts_into_the_blocks_of_a_sequence():
    assert layout(lookahead=0).blocks_for(16) == 1
    assert layout(lookahead=1).blocks_for(16) == 2


def test_infeasible_names_what_takes_the_memory():
    with pytest.raises(InfeasibleError, match=r"Llama-3\.1-70B.*weights 131\.4.*tensor_parallel"):
        layout("llama31_70b")
    assert layout("llama31_70b", tensor_parallel=4).blocks > 1000


def test_engine_reserve_is_taken_off():
    gpu, _ = resolve(Cluster(gpu="h100_sxm"))
    engine = read_engine("vllm_0_10")
    resident = [Resident(load_model("llama31_8b", "model"), 1)]
    kv = [
        kv_layout(resident, gpu, Cluster(gpu="h100_sxm"), replace(engine, reserve_bytes=reserve), ChunkedPrefill(), 0)
        for reserve in (0.0, 3.0e9)
    ]
    assert kv[0].blocks - kv[1].blocks == pytest.approx(3.0e9 / kv[0].block_bytes, abs=1)
