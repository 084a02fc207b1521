"""On a GPU: the kernels compute what their references do, and timings obey physics. Needs no conftest."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")
if not torch.cuda.is_available():
    pytest.skip("torch sees no GPU", allow_module_level=True)

from sim.attention import Attention
from sim.hardware import known_gpus, read_gpu
from sim.layers import Ffn, Layers
from sim.model import Model
from sim.profiling.attention import attend_with, kernels_at, sdpa_attend
from sim.profiling.experts import activate, apply_experts, random_experts, route
from sim.profiling.experts import kernels_at as expert_kernels_at
from sim.profiling.layers import add_rms_norm, fuse, fusing_kernel, rotary_angles, rotate
from sim.profiling.place import find_place
from sim.profiling.timing import captured, measure
from sim.profiling.transformer import Transformer

GPU = find_place("cuda", "bf16")
CLOSE = {"rtol": 3e-2, "atol": 3e-2}
"""bf16 sums in another order."""


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("window", [0, 100])
@pytest.mark.parametrize("width", [1, 4, 16])
@pytest.mark.parametrize("kernel", kernels_at(GPU))
def test_attention_equals_masked_sdpa(kernel: str, width: int, window: int) -> None:
    query, keys, values = GPU.randn(3, width, 32, 128), GPU.randn(3, 1024, 4, 128), GPU.randn(3, 1024, 4, 128)
    lengths = torch.tensor([1024, 1024 if kernel == "flash" else 500, 1024], dtype=torch.int32, device=GPU.device)
    wanted = sdpa_attend(query, keys, values, lengths, window)
    torch.testing.assert_close(attend_with(kernel)(query, keys, values, lengths, window), wanted, **CLOSE)


@pytest.mark.parametrize("tokens", [1, 100, 2000])
@pytest.mark.parametrize("kernel", expert_kernels_at(GPU))
def test_experts_equal_the_loop(kernel: str, tokens: int) -> None:
    weights, hidden = random_experts(GPU, 64, 512, 256, gated=True), GPU.randn(tokens, 512)
    chosen = torch.from_numpy(route(tokens, 64, 6, "zipf_1.0")).to(GPU.device)
    shares = torch.rand(tokens, 6, device=GPU.device)
    wanted = apply_experts(hidden, chosen, shares, weights, "loop")
    torch.testing.assert_close(apply_experts(hidden, chosen, shares, weights, kernel), wanted, rtol=5e-2, atol=1e-1)


def test_fused_elementwise_kernels_equal_eager_ones() -> None:
    kernel = fusing_kernel(GPU)
    rows, residual, weight = GPU.randn(70, 512), GPU.randn(70, 512), GPU.randn(512)
    torch.testing.assert_close(fuse(activate, kernel)(rows, gated=True), activate(rows, gated=True), **CLOSE)
    fused, eager = (function(rows, residual, weight) for function in (fuse(add_rms_norm, kernel), add_rms_norm))
    torch.testing.assert_close(fused, eager, **CLOSE)
    heads, angles = GPU.randn(5, 3, 8, 128), rotary_angles(GPU.integers(4000, 5, 3), 128)
    torch.testing.assert_close(fuse(rotate, kernel)(heads, *angles), rotate(heads, *angles), **CLOSE)


@pytest.mark.parametrize("ffn", [Ffn(width=1024), Ffn(kind="moe", experts=16, experts_per_token=4, expert_width=256)])
def test_a_captured_step_gives_the_logits_of_an_eager_one(ffn: Ffn) -> None:
    run = Layers(count=2, attention=Attention(heads=8, kv_heads=2, head_dim=64), ffn=ffn)
    model = Model(name="small", hidden=512, vocab=1000, max_context_tokens=4096, layers=[run])
    attention = next(kernel for kernel in kernels_at(GPU) if kernel != "flash")
    built = Transformer(model, GPU, 1, 2, attention, expert_kernels_at(GPU)[0])
    tokens, cached = GPU.integers(1000, 4, 5), torch.full((4,), 300, dtype=torch.int32, device=GPU.device)
    cache = built.cache(4, 320)
    seen = {}

    def step() -> None:
        seen["logits"] = built.forward(tokens, cached, cache)

    eager = built.forward(tokens, cached, cache)
    replay, graph = captured(step, GPU)
    assert graph
    replay()
    torch.testing.assert_close(seen["logits"], eager, **CLOSE)


@pytest.mark.skipif(GPU.gpu not in known_gpus(), reason="no published peaks of this GPU")
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8192, 8192), (8192, 8192, 8192)])
def test_a_product_beats_neither_bandwidth_nor_peak_and_is_not_far_from_them(m: int, n: int, k: int) -> None:
    gpu = read_gpu(GPU.gpu)
    rows, weight = GPU.randn(m, k), GPU.randn(n, k)
    timing = measure(lambda: torch.nn.functional.linear(rows, weight), GPU, 20)
    bound_s = max(2 * m * n * k / gpu.flops_per_s("bf16"), 2 * n * k / gpu.memory_bandwidth_bytes_per_s)
    assert 0.95 * bound_s < timing.latency_s < 3 * bound_s
    assert timing.graph and timing.l2_flushed
