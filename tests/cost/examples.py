"""Small catalogue of the cost tests: real architectures, written out, on catalogued GPUs."""

from __future__ import annotations

from pathlib import Path

from sim.cost.constants import Constants
from sim.cost.forward import ForwardCost
from sim.cost.kinship import constants_for
from sim.cost.routing import Uniform
from sim.cost.work import Peaks
from sim.hardware import read_gpu, read_link
from sim.model import Attention, Ffn, Layers, Model

TABLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "aiconfigurator"

QWEN3_30B = Model(
    name="qwen3_30b_a3b",
    hidden=2048,
    vocab=151936,
    max_context_tokens=40960,
    layers=[
        Layers(
            count=48,
            attention=Attention(heads=32, kv_heads=4, head_dim=128),
            ffn=Ffn(kind="moe", experts=128, experts_per_token=8, expert_width=768),
        )
    ],
)
QWEN3_32B = Model(
    name="qwen3_32b",
    hidden=5120,
    vocab=151936,
    max_context_tokens=40960,
    layers=[Layers(count=64, attention=Attention(heads=64, kv_heads=8, head_dim=128), ffn=Ffn(width=25600))],
)
DEEPSEEK_V2_LITE = Model(
    name="deepseek_v2_lite",
    hidden=2048,
    vocab=102400,
    max_context_tokens=32768,
    layers=[
        Layers(
            count=27,
            attention=Attention(
                kind="mla", heads=16, kv_heads=1, head_dim=192, value_dim=128, kv_rank=512, rope_dim=64
            ),
            ffn=Ffn(kind="moe", experts=64, experts_per_token=6, expert_width=1408, shared_width=2816),
        )
    ],
)
MIXED = Model(
    name="every_attention",
    hidden=2048,
    vocab=32000,
    max_context_tokens=100000,
    state_bytes=2.0,
    layers=[
        Layers(count=2, attention=attention, ffn=Ffn(width=4096))
        for attention in (
            Attention(kind="sliding", heads=16, kv_heads=4, head_dim=128, window_tokens=1024),
            Attention(kind="chunked", heads=16, kv_heads=4, head_dim=128, window_tokens=1024),
            Attention(kind="linear", heads=16, kv_heads=8, head_dim=128, conv_kernel=4),
            Attention(kind="sparse", heads=16, kv_heads=4, head_dim=128, top_k_tokens=512, index_heads=4, index_dim=64),
        )
    ],
)
MODELS = (QWEN3_30B, QWEN3_32B, DEEPSEEK_V2_LITE, MIXED)


def on(gpu_name: str) -> tuple[Constants, Peaks]:
    """Constants and bf16 peaks of a GPU."""
    gpu = read_gpu(gpu_name)
    constants, _ = constants_for(gpu, "vllm")
    return constants, Peaks(gpu.flops_per_s("bf16"), gpu.memory_bandwidth_bytes_per_s, gpu.sm_count)


def forward(model: Model, gpu_name: str, tensor_parallel: int = 1, expert_parallel: bool = False) -> ForwardCost:
    """Uniform routing over the GPU's own link."""
    gpu = read_gpu(gpu_name)
    link = read_link(gpu.link)
    return ForwardCost(
        model=model,
        gpu=gpu,
        link=link,
        constants=constants_for(gpu, "vllm", link)[0],
        routing=Uniform(),
        tensor_parallel=tensor_parallel,
        expert_parallel=expert_parallel,
    )
