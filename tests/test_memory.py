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


def test_attention_ranks_copy_all_but_the_experts():
    """DeepSeek-V3 in fp8: 654 GB of experts over the GPUs of all ranks, the rest on every one."""
    model = load_model("deepseek_v3", "model")
    experts = 58 * 256 * 3 * 7168 * 2048 * model.expert_bytes
    whole = Resident(model, 1).weight_bytes
    ranks = Resident(model, 1, data_parallel=8, whole_experts=True)
    assert ranks.weight_bytes == pytest.approx(whole - experts * 7 / 8)
    assert Resident(model, 2, data_parallel=4, whole_experts=True).weight_bytes < ranks.weight_bytes
    spare = Resident(model, 1, data_parallel=8, whole_experts=True, redundant_experts=8)
    assert spare.weight_bytes - ranks.weight_bytes == pytest.approx(experts / 256)
    assert ranks.token_bytes == Resident(model, 8).token_bytes, "eight ranks hold eight times as many tokens"


def test_uneven_experts_cost_the_fullest_gpu():
    model = load_model("mixtral_8x7b", "model")
    three, four = (Resident(model, 1, data_parallel=ranks, whole_experts=True).weight_bytes for ranks in (3, 4))
    experts = 32 * 8 * 3 * 4096 * 14336 * 2.0
    assert three - four == pytest.approx(experts * (3 - 2) / 8)


def test_stages_hold_their_layers_and_the_ends_the_tables():
    model = load_model("llama31_70b", "model")
    whole = Resident(model, 1)
    stages = whole.stages([20, 20, 20, 20])
    table = model.vocab * model.hidden * 2
    assert sum(stage.weight_bytes for stage in stages) == pytest.approx(whole.weight_bytes)
    assert stages[0].weight_bytes - stages[1].weight_bytes == pytest.approx(table)
    assert stages[3].weight_bytes == pytest.approx(stages[0].weight_bytes)
    assert stages[1].token_bytes == whole.token_bytes / 4
    assert stages[0].activation_bytes(ChunkedPrefill()) < stages[3].activation_bytes(ChunkedPrefill())
    tied = Resident(load_model("qwen3_0_6b", "model"), 1)
    assert sum(stage.weight_bytes for stage in tied.stages([14, 14])) > tied.weight_bytes


def test_engine_reserve_is_taken_off():
    gpu, _ = resolve(Cluster(gpu="h100_sxm"))
    engine = read_engine("vllm_0_10")
    resident = [Resident(load_model("llama31_8b", "model"), 1)]
    kv = [
        kv_layout(resident, gpu, Cluster(gpu="h100_sxm"), replace(engine, reserve_bytes=reserve), ChunkedPrefill(), 0)
        for reserve in (0.0, 3.0e9)
    ]
    assert kv[0].blocks - kv[1].blocks == pytest.approx(3.0e9 / kv[0].block_bytes, abs=1)
