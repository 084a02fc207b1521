"""Attention over a cache: every kernel that runs here equals softmax(q k) v written out."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.profiling.attention import attend_with, causal_prefill
from sim.profiling.latent import latent_attend, latent_prefill

SHAPES = [(2, 1, 8, 2, 16, 50, 0), (3, 4, 8, 2, 16, 70, 0), (1, 16, 16, 4, 16, 40, 0), (2, 3, 4, 1, 16, 90, 37)]
"""batch, width, heads, kv_heads, head_dim, slots, window_tokens"""


def written_out(query, keys, values, lengths, window):
    out = torch.zeros_like(query)
    _, width, heads, dim = query.shape
    group = heads // keys.shape[2]
    for b, length in enumerate(lengths.tolist()):
        for t in range(width):
            position = length - width + t
            first = max(0, position - window + 1) if window else 0
            for h in range(heads):
                k, v = (part[b, first : position + 1, h // group] for part in (keys, values))
                out[b, t, h] = torch.softmax(k @ query[b, t, h] / dim**0.5, dim=0) @ v
    return out


def inputs(batch, width, heads, kv_heads, dim, slots, window):
    query = torch.randn(batch, width, heads, dim)
    keys, values = torch.randn(batch, slots, kv_heads, dim), torch.randn(batch, slots, kv_heads, dim)
    lengths = torch.randint(width, slots + 1, (batch,), dtype=torch.int32)
    return query, keys, values, lengths, window


@pytest.mark.parametrize("shape", SHAPES)
def test_sdpa_equals_attention_written_out(shape: tuple[int, ...]) -> None:
    arguments = inputs(*shape)
    torch.testing.assert_close(attend_with("sdpa")(*arguments), written_out(*arguments))


def test_a_prompt_is_attention_over_a_cache_that_it_fills() -> None:
    query, keys, values, _, _ = inputs(2, 9, 4, 2, 16, 9, 0)
    full = torch.full((2,), 9, dtype=torch.int32)
    torch.testing.assert_close(causal_prefill(query, keys, values), written_out(query, keys, values, full, 0))


@pytest.mark.parametrize("width", [1, 5])
def test_absorbed_mla_equals_mla_expanded(width: int) -> None:
    """Queries folded through the up-projections see the same scores as keys multiplied out."""
    rank, rope, nope, value_dim, heads, tokens = 24, 8, 16, 12, 3, 20
    latent, rotary = torch.randn(2, tokens, rank), torch.randn(2, tokens, rope)
    up_key, up_value = torch.randn(heads, nope, rank), torch.randn(heads, value_dim, rank)
    query = torch.randn(2, width, heads, nope + rope)
    keys = torch.cat([torch.einsum("btr,hnr->bthn", latent, up_key), rotary[:, :, None].expand(-1, -1, heads, -1)], -1)
    expanded = latent_prefill(query, keys, torch.einsum("btr,hvr->bthv", latent, up_value))
    absorbed = torch.cat([torch.einsum("bwhn,hnr->bwhr", query[..., :nope], up_key), query[..., nope:]], -1)
    out = latent_attend(absorbed, torch.cat([latent, rotary], -1), rank, nope + rope)
    torch.testing.assert_close(torch.einsum("bwhr,hvr->bwhv", out, up_value), expanded, rtol=1e-4, atol=1e-4)


def test_an_unknown_kernel_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="must be one of sdpa, flash, triton, vllm, got 'fast'"):
        attend_with("fast")


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_kernel_equals_sdpa_in_the_interpreter(root: Path) -> None:
    """A process of its own: Triton decides when it is imported whether it interprets."""
    code = (
        "import torch\n"
        "from sim.profiling.attention import sdpa_attend\n"
        "from sim.profiling.triton_attention import triton_attend\n"
        f"for batch, width, heads, kv_heads, dim, slots, window in {[*SHAPES, (2, 2, 4, 2, 16, 700, 0)]}:\n"
        "    q = torch.randn(batch, width, heads, dim)\n"
        "    k, v = torch.randn(batch, slots, kv_heads, dim), torch.randn(batch, slots, kv_heads, dim)\n"
        "    lengths = torch.randint(width, slots + 1, (batch,), dtype=torch.int32)\n"
        "    case = (q, k, v, lengths, window)\n"
        "    torch.testing.assert_close(triton_attend(*case), sdpa_attend(*case))\n"
    )
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
