"""Attention and FFN: every bound is checked, and hand-worked layers of real models come out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.attention import ATTENTION_KINDS, Attention, Linear
from sim.layers import Ffn, Layers

EXTRAS: dict[str, dict[str, int]] = {
    "full": {},
    "sliding": {"window_tokens": 128},
    "chunked": {"window_tokens": 128},
    "mla": {"kv_heads": 1, "kv_rank": 512, "rope_dim": 64},
    "linear": {"conv_kernel": 4},
    "sparse": {"top_k_tokens": 2048, "index_heads": 4, "index_dim": 32},
}


def attention(kind: str, **changes: object) -> Attention:
    """A small layer of `kind`."""
    fields: dict[str, object] = {"heads": 16, "kv_heads": 4, "head_dim": 128, **EXTRAS[kind], **changes}
    return Attention(kind=kind, **fields)  # type: ignore[arg-type]


def shapes(linears: list[Linear]) -> list[tuple[str, int, int, str]]:
    return [(linear.name, linear.n, linear.k, linear.split) for linear in linears]


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
@pytest.mark.parametrize("name", ["heads", "kv_heads", "head_dim"])
def test_counts_below_one_are_refused_by_name(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"attention\.{name} must be >= 1, got 0"):
        attention(kind, **{name: 0})


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_a_field_without_effect_is_refused_and_a_needed_one_demanded(kind: str) -> None:
    every = {name: 1 for extra in EXTRAS.values() for name in extra if name != "kv_heads"}
    latent = {"kv_rank", "rope_dim"}  # sparse attention may be latent as well
    for name in set(every) - set(EXTRAS[kind]) - (latent if kind == "sparse" else set()):
        with pytest.raises(ValueError, match=rf"attention\.{name} has no effect for kind '{kind}', got 1; remove it"):
            attention(kind, **{name: 1})
    for name in set(EXTRAS[kind]) - {"kv_heads"}:
        with pytest.raises(ValueError, match=rf"attention\.{name} must"):
            attention(kind, **{name: 0})


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("full", {"kv_heads": 3}, r"attention\.heads must be a multiple of attention\.kv_heads=3, got 16"),
        ("full", {"value_dim": -1}, r"attention\.value_dim must be >= 0"),
        ("sliding", {"window_tokens": -1}, r"attention\.window_tokens must be >= 0, got -1"),
        ("mla", {"kv_heads": 2}, r"attention\.kv_heads must be 1"),
        ("mla", {"rope_dim": 128}, r"attention\.rope_dim must lie in \[1, head_dim=128\)"),
        ("mla", {"bias": True}, r"attention\.bias has no effect"),
        ("linear", {"output_gate": True}, r"attention\.output_gate has no effect for kind 'linear'"),
    ],
)
def test_bounds_between_fields(kind: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(kind, **changes)


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"attention\.kind must be one of full, sliding"):
        Attention(kind="flash", heads=1, kv_heads=1, head_dim=1)
    with pytest.raises(ValueError, match=r"ffn\.kind must be one of dense, moe"):
        Ffn(kind="sparse", width=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "dense"}, r"ffn\.width must be >= 1"),
        ({"kind": "dense", "width": 8, "experts": 2}, r"ffn\.experts has no effect for kind 'dense'"),
        ({"kind": "dense", "width": 8, "shared_width": 2}, r"ffn\.shared_width has no effect"),
        ({"kind": "moe", "experts": 4, "experts_per_token": 2}, r"ffn\.expert_width must be >= 1"),
        ({"kind": "moe", "experts": 4, "experts_per_token": 5, "expert_width": 8}, r"experts_per_token must be <= "),
        (
            {"kind": "moe", "experts": 4, "experts_per_token": 2, "expert_width": 8, "width": 9},
            r"ffn\.width has no eff",
        ),
    ],
)
def test_ffn_bounds(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ffn(**fields)  # type: ignore[arg-type]


def test_layers_need_a_count() -> None:
    with pytest.raises(ValueError, match=r"layers\.count must be >= 1, got 0"):
        Layers(count=0, attention=attention("full"), ffn=Ffn(width=8))


def test_matrices_of_a_grouped_query_layer() -> None:
    """Llama-3.1-8B: 32 heads and 8 KV heads of 128, width 4096."""
    layer = Attention(heads=32, kv_heads=8, head_dim=128)
    assert shapes(layer.linears(4096)) == [("qkv", 6144, 4096, "column"), ("o", 4096, 4096, "row")]
    assert shapes(Ffn(width=14336).linears(4096)) == [("gate_up", 28672, 4096, "column"), ("down", 4096, 14336, "row")]


def test_matrices_of_a_latent_layer() -> None:
    """DeepSeek-V3, arXiv 2412.19437 section 4.2: query rank 1536, KV rank 512, rope 64, heads 128 of 128 + 64."""
    layer = Attention(
        kind="mla", heads=128, kv_heads=1, head_dim=192, value_dim=128, q_rank=1536, kv_rank=512, rope_dim=64
    )
    assert shapes(layer.linears(7168)) == [
        ("q_a", 1536, 7168, "none"),
        ("q_b", 24576, 1536, "column"),
        ("kv_a", 576, 7168, "none"),
        ("kv_b", 32768, 512, "column"),
        ("o", 7168, 16384, "row"),
    ]
    assert layer.kv_elements == 576
    assert layer.core_flops(1000) == 2 * 128 * (576 + 512) * 1000


def test_matrices_of_a_gated_delta_net_layer() -> None:
    """Qwen3-Next: the published in_proj_qkvz has 12288 rows and in_proj_ba 64; the state is 32 heads of 128 x 128."""
    layer = Attention(kind="linear", heads=32, kv_heads=16, head_dim=128, conv_kernel=4)
    assert shapes(layer.linears(2048)) == [("in", 12288 + 64, 2048, "column"), ("o", 2048, 4096, "row")]
    assert layer.state_elements == 32 * 128 * 128 + 3 * 8192
    assert layer.kv_elements == 0
    assert layer.core_flops(1) == layer.core_flops(10**6)


def test_matrices_of_a_sparse_latent_layer() -> None:
    """DeepSeek-V3.2: an indexer of 64 heads of 128 over the latent cache, 2048 tokens read."""
    layer = Attention(
        kind="sparse", heads=128, kv_heads=1, head_dim=192, value_dim=128, q_rank=1536, kv_rank=512, rope_dim=64,
        top_k_tokens=2048, index_heads=64, index_dim=128,
    )  # fmt: skip
    names = {linear.name: (linear.n, linear.k, linear.split) for linear in layer.linears(7168)}
    assert names["index_q"] == (8192, 1536, "none")
    assert names["index_k"] == (128, 7168, "none")
    assert layer.kv_elements == 576 + 128
    assert layer.read_tokens(100_000) == 2048
    # Past the top k only the indexer's scores grow.
    assert layer.core_flops(100_001) - layer.core_flops(100_000) == 2 * 64 * 128


def test_an_output_gate_doubles_the_query_rows() -> None:
    plain, gated = (attention("full", output_gate=gate).linears(512)[0].n for gate in (False, True))
    assert gated - plain == 16 * 128


def test_biases_add_one_number_per_row() -> None:
    plain, biased = attention("full"), attention("full", bias=True, out_bias=True)
    rows = sum(linear.n for linear in plain.linears(512))
    assert sum(x.params for x in biased.linears(512)) - sum(x.params for x in plain.linears(512)) == rows


def test_one_expert_is_a_dense_ffn_and_its_router() -> None:
    """The law one expert = dense: same matrices, the router apart."""
    moe = Ffn(kind="moe", experts=1, experts_per_token=1, expert_width=64)
    dense = Ffn(width=64)
    assert moe.expert_params(32) == sum(linear.params for linear in dense.linears(32)) == dense.matrices * 32 * 64
    assert shapes(moe.linears(32)) == [("router", 1, 32, "none")]
    assert dense.expert_params(32) == 0


@given(context=st.integers(1, 10**6), kind=st.sampled_from(ATTENTION_KINDS))
def test_a_token_reads_no_more_than_its_context_and_window(context: int, kind: str) -> None:
    layer = attention(kind)
    read = layer.read_tokens(context)
    assert read <= context
    assert read >= (0 if kind == "linear" else 1)
    if layer.window_tokens:
        assert read <= layer.window_tokens
    if kind != "chunked":
        assert layer.read_tokens(context + 1) >= read


def test_a_chunk_starts_again_at_its_boundary() -> None:
    layer = attention("chunked")
    assert [layer.read_tokens(n) for n in (1, 128, 129, 256, 257)] == [1, 128, 1, 128, 1]
