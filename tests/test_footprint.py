"""What models weigh, against published figures and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.footprint import active_params, flops_per_token, kv_groups, params, weight_bytes_total
from sim.model import Model, known_models, read_model, with_sparsity


def printed_unit(figure: float) -> float:
    """One unit of the last digit of a figure as its publisher prints it, in billions (3.3e9: 0.1e9)."""
    decimals = f"{figure / 1e9:.12g}".partition(".")[2]
    return float(10 ** -len(decimals)) * 1e9


@pytest.mark.parametrize("name", known_models())
def test_total_parameters_are_the_published_ones(name: str) -> None:
    model = read_model(name)
    assert model.total_params > 0
    assert params(model) == pytest.approx(model.total_params, rel=0.01)


@pytest.mark.parametrize("name", [name for name in known_models() if read_model(name).is_moe])
def test_active_parameters_are_the_published_ones(name: str) -> None:
    """Within 1 %, or equal to the printed figure, which some round and some cut off."""
    model = read_model(name)
    assert model.active_params > 0
    error = abs(active_params(model, model.active_tables) - model.active_params)
    assert error <= max(0.01 * model.active_params, printed_unit(model.active_params))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("llama31_8b", 8_030_261_248),
        ("llama32_1b", 1_235_814_400),
        ("qwen2_0_5b", 494_032_768),
        ("mixtral_8x7b", 46_702_792_704),
        ("deepseek_v2_lite", 15_706_484_224),
    ],
)
def test_checkpoints_are_counted_to_the_last_weight(name: str, count: int) -> None:
    """Sizes of the published checkpoints without per-head norms or router biases, which `params` leaves out."""
    assert params(read_model(name)) == count


@pytest.mark.parametrize("name", known_models())
def test_active_never_exceeds_total_and_dense_models_are_all_active(name: str) -> None:
    model = read_model(name)
    counts = [active_params(model, tables) for tables in (0, 1, 2)]
    assert counts == sorted(counts)
    assert (counts[2] == params(model)) == (not model.is_moe)


def groups(name: str) -> list[tuple[str, int, float, int]]:
    return [
        (group.kind, group.layers, group.bytes_per_token, group.window_tokens) for group in kv_groups(read_model(name))
    ]


def test_kv_bytes_by_hand() -> None:
    """Per token in bf16: 2 bytes x layers x (keys + values), or x the latent of 512 + 64."""
    assert groups("llama31_8b") == [("full", 32, 131_072, 0)]
    assert groups("deepseek_v3") == [("mla", 61, 576 * 61 * 2, 0)]
    assert groups("gpt_oss_20b") == [("sliding", 12, 12 * 2048, 128), ("full", 12, 12 * 2048, 0)]
    assert groups("llama4_scout") == [("chunked", 36, 36 * 4096, 8192), ("full", 12, 12 * 4096, 0)]
    assert groups("qwen3_next_80b_a3b") == [("linear", 36, 0, 0), ("full", 12, 12 * 2048, 0)]


def test_a_linear_group_holds_a_state_and_a_window_stops_growing() -> None:
    linear = kv_groups(read_model("qwen3_next_80b_a3b"))[0]
    assert linear.state_bytes == 36 * 2 * (32 * 128 * 128 + 3 * 8192)
    assert linear.sequence_bytes(1) == linear.sequence_bytes(100_000)
    sliding, full = kv_groups(read_model("gpt_oss_20b"))
    assert sliding.sequence_bytes(64) == full.sequence_bytes(64)
    assert sliding.sequence_bytes(1000) == sliding.sequence_bytes(128) < full.sequence_bytes(1000)


@pytest.mark.parametrize("name", known_models())
def test_groups_cover_every_layer_once(name: str) -> None:
    model = read_model(name)
    assert sum(group.layers for group in kv_groups(model)) == model.layer_count


def test_weight_bytes_of_mixed_widths() -> None:
    """gpt-oss: the checkpoints of 12.8 and 60.8 GiB (arXiv 2508.10925, table 1); tables in bf16 beside fp8 weights."""
    assert weight_bytes_total(read_model("gpt_oss_20b")) == pytest.approx(12.8 * 2**30, rel=0.01)
    assert weight_bytes_total(read_model("gpt_oss_120b")) == pytest.approx(60.8 * 2**30, rel=0.01)
    v3 = read_model("deepseek_v3")
    assert weight_bytes_total(v3) == params(v3) + 2 * v3.vocab * v3.hidden
    llama = read_model("llama31_8b")
    assert weight_bytes_total(llama) == 2 * params(llama)


def test_flops_by_hand() -> None:
    """Llama-3.1-8B: two per weight of 32 layers and the head, and 4 x 4096 per cached token and layer."""
    layer = 4096 * 6144 + 4096 * 4096 + 3 * 4096 * 14336
    weights = 32 * layer + 128256 * 4096
    assert flops_per_token(read_model("llama31_8b"), 1000) == 2 * weights + 32 * 4 * 4096 * 1000
    with pytest.raises(ValueError, match="context_tokens must be >= 1, got 0"):
        flops_per_token(read_model("llama31_8b"), 0)


@pytest.mark.parametrize("name", known_models())
def test_flops_are_two_per_active_weight_and_grow_with_context(name: str) -> None:
    model = read_model(name)
    assert flops_per_token(model, 1) == pytest.approx(2 * active_params(model), rel=0.02)
    if all(run.attention.kind != "chunked" for run in model.layers):
        assert flops_per_token(model, 4096) > flops_per_token(model, 2048)


def smaller_and_larger(model: Model) -> list[tuple[Model, Model]]:
    ffn = next(run.ffn for run in model.layers if run.ffn.kind == "moe")
    return [
        (with_sparsity(model, expert_width=ffn.expert_width // 2), model),
        (with_sparsity(model, experts=ffn.experts, experts_per_token=1), with_sparsity(model, experts_per_token=2)),
        (with_sparsity(model, shared_width=0), with_sparsity(model, shared_width=4096)),
    ]


@pytest.mark.parametrize("name", [name for name in known_models() if read_model(name).is_moe])
def test_more_width_or_more_experts_per_token_is_more_work(name: str) -> None:
    for small, large in smaller_and_larger(read_model(name)):
        assert active_params(small) < active_params(large)
        assert flops_per_token(small, 100) < flops_per_token(large, 100)
        assert params(small) <= params(large)


def test_more_experts_add_weights_but_only_the_router_adds_work() -> None:
    model = read_model("qwen3_30b_a3b")
    doubled = with_sparsity(model, experts=256)
    assert active_params(doubled) - active_params(model) == 48 * 128 * 2048
    assert params(doubled) - params(model) == 48 * 128 * (2048 + 3 * 2048 * 768)


def test_narrower_kv_halves_the_cache_and_nothing_else() -> None:
    model = read_model("qwen3_32b")
    fp8 = replace(model, kv_bytes=1.0)
    assert kv_groups(fp8)[0].bytes_per_token * 2 == kv_groups(model)[0].bytes_per_token
    assert weight_bytes_total(fp8) == weight_bytes_total(model)
