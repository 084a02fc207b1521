"""The reader of Hugging Face configs: the whole catalogue, its families' quirks, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim.data import data_dir
from sim.huggingface import model_from_config
from sim.model import Model, known_models, read_model

CONFIGS = data_dir("conf") / "model" / "config_json"


def config(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text())
    return loaded


def read(folder: Path, content: dict[str, Any]) -> Model:
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return model_from_config(path)


def kinds(model: Model) -> list[tuple[int, str, str]]:
    return [(run.count, run.attention.kind, run.ffn.kind) for run in model.layers]


@pytest.mark.parametrize("name", known_models())
def test_every_catalogued_model_is_what_its_config_says(name: str) -> None:
    ours = read_model(name)
    derived = model_from_config(CONFIGS / f"{name}.json")
    added = {
        field: getattr(ours, field)
        for field in ("name", "source", "draft", "total_params", "active_params", "active_tables")
    }
    assert replace(derived, **added) == ours


def test_every_config_is_catalogued() -> None:
    assert sorted(path.stem for path in CONFIGS.glob("*.json")) == known_models()


@pytest.mark.parametrize("name", known_models())
def test_key_order_does_not_matter(name: str, tmp_path: Path) -> None:
    shuffled = dict(reversed(config(name).items()))
    assert replace(read(tmp_path, shuffled), name="x") == replace(model_from_config(CONFIGS / f"{name}.json"), name="x")


@pytest.mark.parametrize("name", known_models())
def test_a_config_without_a_needed_key_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Whatever the family, a missing basic key is named with its file, never guessed."""
    content = config(name)
    target = content.get("text_config", content)
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"):
        kept = target.pop(key)
        with pytest.raises(ValueError, match=rf"config\.json: config .* lacks {key}, needed"):
            read(tmp_path, content)
        target[key] = kept


@pytest.mark.parametrize(
    ("name", "keys", "named"),
    [
        ("qwen3_8b", ("intermediate_size",), "intermediate_size or ffn_dim"),
        ("deepseek_v3", ("qk_rope_head_dim", "v_head_dim"), "qk_rope_head_dim, v_head_dim"),
        ("qwen3_next_80b_a3b", ("linear_conv_kernel_dim",), "linear_conv_kernel_dim"),
        ("mixtral_8x7b", ("num_experts_per_tok",), "num_experts_per_tok"),
    ],
)
def test_missing_keys_of_a_family_are_named(name: str, keys: tuple[str, ...], named: str, tmp_path: Path) -> None:
    content = {key: value for key, value in config(name).items() if key not in keys}
    with pytest.raises(ValueError, match=f"lacks {named}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "big"}, "hidden_size must be whole numbers >= 1"),
        ({"num_attention_heads": 0}, "num_attention_heads must be whole numbers >= 1"),
        ({"num_key_value_heads": 5}, r"attention\.heads must be a multiple"),
        ({"layers_block_type": ["mamba"]}, "holds layers_block_type, which make layers unknown"),
        ({"layer_types": ["full_attention"]}, "layer_types must have num_hidden_layers=36 entries, got 1"),
        ({"layer_types": ["conv"] * 36}, "layer_types must be among .*, got conv"),
        ({"layer_types": ["sliding_attention"] * 36}, "sliding_window must be set"),
        ({"layer_types": ["linear_attention"] * 36}, "lacks linear_num_value_heads"),
        ({"attn_type_list": [0, 1]}, "holds attn_type_list"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder must be false"),
        ({"quantization_config": {"quant_method": "magic"}}, "quantization_config of method 'magic' must convert"),
    ],
)
def test_what_it_cannot_read_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        read(tmp_path, {**config("qwen3_8b"), **change})


def test_a_state_space_model_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="'mamba' lacks num_attention_heads, max_position_embeddings, intermediate_size"
    ):
        read(tmp_path, {"model_type": "mamba", "hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280})
    broken = tmp_path / "broken.json"
    broken.write_text('{"hidden_size": 1')
    with pytest.raises(ValueError, match=r"broken\.json: not JSON"):
        model_from_config(broken)
    broken.write_text("[1]")
    with pytest.raises(ValueError, match="must hold a JSON object, got list"):
        model_from_config(broken)
    with pytest.raises(FileNotFoundError):
        model_from_config(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("deepseek_v3", {"first_k_dense_replace": 5}, [(5, "mla", "dense"), (56, "mla", "moe")]),
        ("deepseek_v3", {"moe_layer_freq": 2}, [(32, "mla", "dense"), (29, "mla", "moe")]),
        ("qwen2_57b_a14b", {"decoder_sparse_step": 2}, [(14, "full", "dense"), (14, "full", "moe")]),
        ("qwen2_57b_a14b", {"mlp_only_layers": [0, 27]}, [(2, "full", "dense"), (26, "full", "moe")]),
        (
            "qwen3_8b",
            {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 30},
            [(30, "full", "dense"), (6, "sliding", "dense")],
        ),
        ("mixtral_8x7b", {"sliding_window": 4096}, [(32, "sliding", "moe")]),
        ("mixtral_8x7b", {"sliding_window": 32768}, [(32, "full", "moe")]),
        ("gpt_oss_20b", {"layer_types": None}, [(12, "sliding", "moe"), (12, "full", "moe")]),
        (
            "deepseek_v3",
            {"index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128},
            [(3, "sparse", "dense"), (58, "sparse", "moe")],
        ),
    ],
)
def test_layer_conventions(
    name: str, change: dict[str, Any], expected: list[tuple[int, str, str]], tmp_path: Path
) -> None:
    assert kinds(read(tmp_path, {**config(name), **change})) == expected


def test_maverick_alternates_dense_and_moe_layers(tmp_path: Path) -> None:
    """Llama 4 Maverick: experts in every second layer, dense layers of intermediate_size_mlp, every fourth full."""
    content = config("llama4_scout")
    content["text_config"] |= {"interleave_moe_layer_step": 2, "num_local_experts": 128}
    model = read(tmp_path, content)
    assert sorted(kinds(model)) == [(12, "chunked", "moe"), (12, "full", "moe"), (24, "chunked", "dense")]
    assert {run.ffn.width for run in model.layers} == {0, 16384}
    assert {run.ffn.shared_width for run in model.layers} == {0, 8192}


@pytest.mark.parametrize(
    ("quantization", "weight_bytes", "expert_bytes", "kv_bytes"),
    [
        ({}, 2.0, 2.0, 2.0),
        ({"quant_method": "fp8"}, 1.0, 1.0, 2.0),
        ({"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8}}, 1.0, 1.0, 1.0),
        ({"quant_method": "awq", "bits": 4}, 0.5, 0.5, 2.0),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5, 0.5, 2.0),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, 2.0, 0.53125, 2.0),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
                "ignore": ["lm_head", "re:.*self_attn.*"],
            },
            2.0,
            0.5,
            2.0,
        ),
    ],
)
def test_quantisation(
    quantization: dict[str, Any], weight_bytes: float, expert_bytes: float, kv_bytes: float, tmp_path: Path
) -> None:
    model = read(tmp_path, {**config("qwen3_30b_a3b"), "quantization_config": quantization})
    assert (model.weight_bytes, model.expert_bytes, model.kv_bytes) == (weight_bytes, expert_bytes, kv_bytes)


def test_families_differ_in_which_projections_have_biases(tmp_path: Path) -> None:
    biases = {
        name: (model.layers[0].attention.bias, model.layers[0].attention.out_bias, model.layers[0].ffn.bias)
        for name in ("qwen2_0_5b", "opt_30b", "gpt_oss_20b", "glm45_air", "llama31_8b")
        for model in [read(tmp_path, config(name))]
    }
    assert biases == {
        "qwen2_0_5b": (True, False, False),
        "opt_30b": (True, True, True),
        "gpt_oss_20b": (True, True, True),
        "glm45_air": (True, False, False),
        "llama31_8b": (False, False, False),
    }


def test_a_multimodal_config_reads_as_its_text_model(tmp_path: Path) -> None:
    nested = {"model_type": "some_vl", "text_config": config("qwen3_8b"), "vision_config": {"hidden_size": 1}}
    folder = tmp_path / "some-vl-8b"
    folder.mkdir()
    model = read(folder, nested)
    assert model.name == "some-vl-8b"
    assert model.layers == read_model("qwen3_8b").layers
