"""vLLM's kernels get what their signatures ask for: stand-ins with those signatures compute the same by other means."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.profiling.attention import attend_with, sdpa_attend
from sim.profiling.engines import PAGE_TOKENS
from sim.profiling.experts import apply_experts, random_experts, route
from sim.profiling.place import find_place


def flash_attn_varlen_func(
    q, k, v, max_seqlen_q, cu_seqlens_q, max_seqlen_k, cu_seqlens_k=None, seqused_k=None, q_v=None, dropout_p=0.0,
    softmax_scale=None, causal=False, window_size=None, softcap=0.0, alibi_slopes=None, block_table=None, *,
    fa_version=2,
):  # fmt: skip
    """The signature of vllm.vllm_flash_attn.flash_attn_varlen_func; gathers the pages and calls torch."""
    assert causal and k.shape[1] == PAGE_TOKENS
    batch = len(seqused_k)
    assert cu_seqlens_q.tolist() == [max_seqlen_q * i for i in range(batch + 1)]
    keys, values = (part[block_table.long()].flatten(1, 2) for part in (k, v))
    assert keys.shape[1] == max_seqlen_k
    window = window_size[0] + 1
    return sdpa_attend(q.view(batch, max_seqlen_q, *q.shape[1:]), keys, values, seqused_k, window).flatten(0, 1)


def fused_experts(hidden_states, w1, w2, topk_weights, topk_ids, inplace=False, activation="silu"):
    """The signature of vLLM's fused_experts, its first arguments."""
    assert topk_weights.dtype == torch.float32 and topk_ids.dtype == torch.int32
    weights = SimpleNamespace(up=w1, down=w2, gated=True)
    return apply_experts(hidden_states, topk_ids.long(), topk_weights, weights, "loop")


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("vllm", "vllm.model_executor", "vllm.model_executor.layers", "vllm.model_executor.layers.fused_moe")
    for name in (*names, "vllm.model_executor.layers.fused_moe.fused_moe", "vllm.vllm_flash_attn"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["vllm.vllm_flash_attn"], "flash_attn_varlen_func", flash_attn_varlen_func, False)
    monkeypatch.setattr(
        sys.modules["vllm.model_executor.layers.fused_moe.fused_moe"], "fused_experts", fused_experts, False
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))


@pytest.mark.parametrize("window", [0, 21])
def test_vllm_attention_reads_the_same_cache_in_pages(window: int) -> None:
    query = torch.randn(3, 4, 8, 16)
    keys, values = torch.randn(3, 64, 2, 16), torch.randn(3, 64, 2, 16)
    lengths = torch.tensor([64, 50, 4], dtype=torch.int32)
    paged = attend_with("vllm")(query, keys, values, lengths, window)
    torch.testing.assert_close(paged, sdpa_attend(query, keys, values, lengths, window))


def test_vllm_experts_take_gate_before_up() -> None:
    place = find_place("cpu", "fp32")
    weights, hidden = random_experts(place, 8, 16, 12, gated=True), place.randn(5, 16)
    chosen, shares = torch.from_numpy(route(5, 8, 2, "uniform")), torch.rand(5, 2)
    torch.testing.assert_close(
        apply_experts(hidden, chosen, shares, weights, "vllm"),
        apply_experts(hidden, chosen, shares, weights, "grouped_mm"),
    )
    with pytest.raises(ValueError, match="needs gated experts"):
        apply_experts(hidden, chosen, shares, random_experts(place, 8, 16, 12, gated=False), "vllm")
