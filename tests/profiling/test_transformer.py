"""Whole steps: verification equals sequential decoding, shards and shallower models are what they say."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.attention import Attention
from sim.layers import Ffn, Layers
from sim.model import Model, read_model
from sim.profiling.place import Place, find_place
from sim.profiling.transformer import Cache, Transformer, layers_that_fit

FULL = Attention(heads=4, kv_heads=2, head_dim=16)
SLIDING = Attention(kind="sliding", window_tokens=5, heads=4, kv_heads=2, head_dim=16)
MOE = Ffn(kind="moe", experts=8, experts_per_token=2, expert_width=32, shared_width=32)
MODEL = Model(
    name="tiny",
    hidden=64,
    vocab=97,
    max_context_tokens=512,
    layers=[
        Layers(count=1, attention=FULL, ffn=Ffn(width=96)),
        Layers(count=2, attention=SLIDING, ffn=MOE),
        Layers(count=1, attention=FULL, ffn=Ffn(width=96, gated=False)),
    ],
)


def built(model: Model = MODEL, ranks: int = 1, layers: int = 4) -> Transformer:
    return Transformer(model, find_place("cpu", "fp32"), ranks, layers, "sdpa", "grouped_mm")


def test_a_verify_step_equals_sequential_decode_steps() -> None:
    """The law SD rests on: width tokens at once give the logits of as many single-token steps."""
    transformer = built()
    cache = transformer.cache(3, 48)
    other = Cache([part.clone() for part in cache.keys], [part.clone() for part in cache.values])
    tokens, cached = torch.randint(97, (3, 5)), torch.tensor([0, 7, 30], dtype=torch.int32)
    together = transformer.forward(tokens, cached, cache)
    apart = torch.cat([transformer.forward(tokens[:, i : i + 1], cached + i, other) for i in range(5)], dim=1)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_a_step_writes_its_own_slots_and_no_others() -> None:
    transformer = built()
    cache = transformer.cache(1, 20)
    before = cache.keys[0].clone()
    transformer.forward(torch.randint(97, (1, 3)), torch.tensor([10], dtype=torch.int32), cache)
    changed = (cache.keys[0] != before).any(-1).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [10, 11, 12]


def test_logits_depend_on_the_context() -> None:
    transformer = built()
    tokens, cached = torch.randint(97, (1, 1)), torch.tensor([9], dtype=torch.int32)
    one, two = (transformer.forward(tokens, cached, transformer.cache(1, 16)) for _ in range(2))
    assert not torch.allclose(one, two)


def test_the_experts_of_every_moe_layer_are_told() -> None:
    transformer, chosen = built(), []
    transformer.forward(
        torch.randint(97, (2, 3)), torch.tensor([4, 4], dtype=torch.int32), transformer.cache(2, 16), chosen
    )
    assert [tuple(experts.shape) for experts in chosen] == [(6, 2), (6, 2)]


def test_a_rank_holds_its_share_of_the_weights() -> None:
    whole, half = (built(ranks=ranks) for ranks in (1, 2))
    for one, two in zip(whole.layers, half.layers, strict=True):
        assert two.qkv.numel() * 2 == one.qkv.numel()
        assert two.down is not None and one.down is not None
        assert two.down.numel() * 2 == one.down.numel()
    assert whole.layers[1].experts is not None and half.layers[1].experts is not None
    assert half.layers[1].experts.up.numel() * 2 == whole.layers[1].experts.up.numel()


def test_fewer_layers_keep_the_mixture() -> None:
    assert [layer.run.ffn.kind for layer in built(layers=2).layers] == ["dense", "moe"]


def test_all_layers_fit_or_as_many_as_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, place = read_model("qwen3_30b_a3b"), find_place("cpu", "bf16")
    memory = {"bytes": 150.75e9}
    monkeypatch.setattr(Place, "memory_bytes", lambda _: memory["bytes"])
    assert layers_that_fit(model, place, 1, 0.8) == 48
    memory["bytes"] = 48e9
    fewer = layers_that_fit(model, place, 1, 0.8)
    weights = (fewer / 48) * (30.5e9 - 2 * 151936 * 2048) + 2 * 151936 * 2048
    assert 2 * weights <= 0.8 * 48e9
    assert 2 * weights + 2 * 30.5e9 / 48 > 0.97 * 0.8 * 48e9
    memory["bytes"] = 1e9
    assert layers_that_fit(model, place, 1, 0.8) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Attention(heads=4, kv_heads=2, head_dim=16, output_gate=True), "output gate"),
        (
            Attention(kind="mla", heads=4, kv_heads=1, head_dim=24, value_dim=16, kv_rank=32, rope_dim=8),
            "mla attention",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(change: Attention, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(replace(MODEL, layers=[Layers(count=1, attention=change, ffn=Ffn(width=96))]))


def test_ranks_must_divide_the_heads() -> None:
    with pytest.raises(ValueError, match="tensor_parallel must divide the 4 heads of tiny, got 3"):
        built(ranks=3)
