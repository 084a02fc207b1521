"""Kernels of serving engines, where they are installed, behind the same functions as torch's."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import torch

from sim.profiling.experts import ExpertWeights

PAGE_TOKENS = 16
"""Caches of whole steps and of ops hold a multiple of it, so that a paged kernel can read them as they lie."""


def vllm_experts(
    hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor, weights: ExpertWeights
) -> torch.Tensor:
    """vLLM's fused experts: its Triton kernels with the tuning files it has for the GPU.

    Raises:
        ValueError: the experts are not gated.
    """
    if not weights.gated:
        raise ValueError("experts kernel vllm needs gated experts; choose grouped_mm")
    fused = import_module("vllm.model_executor.layers.fused_moe.fused_moe").fused_experts
    out: torch.Tensor = fused(hidden, weights.up, weights.down, shares.float(), chosen.to(torch.int32))
    return out


def vllm_attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, window_tokens: int
) -> torch.Tensor:
    """`sim.profiling.attention.Attend` by vLLM's FlashAttention on a paged cache: sequence b has the pages in order."""
    function = import_module("vllm.vllm_flash_attn").flash_attn_varlen_func
    batch, width, heads, dim = query.shape
    pages = keys.shape[1] // PAGE_TOKENS
    table = torch.arange(batch * pages, dtype=torch.int32, device=query.device).view(batch, pages)
    starts = torch.arange(0, (batch + 1) * width, width, dtype=torch.int32, device=query.device)
    arguments: dict[str, Any] = {
        "q": query.reshape(batch * width, heads, dim),
        "k": keys.view(batch * pages, PAGE_TOKENS, *keys.shape[2:]),
        "v": values.view(batch * pages, PAGE_TOKENS, *values.shape[2:]),
        "max_seqlen_q": width,
        "cu_seqlens_q": starts,
        "max_seqlen_k": keys.shape[1],
        "seqused_k": lengths,
        "causal": True,
        "window_size": [window_tokens - 1, 0] if window_tokens else [-1, -1],
        "block_table": table,
    }
    if "fa_version" in inspect.signature(function).parameters:
        arguments["fa_version"] = 3 if torch.cuda.get_device_capability(query.device)[0] == 9 else 2
    out: torch.Tensor = function(**arguments)
    return out.view(batch, width, heads, dim)
