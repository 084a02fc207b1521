"""Model: bounds, the catalogue and sparsity what-ifs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from sim.model import Attention, Ffn, Layers, Model, known_models, read_model, with_sparsity

DENSE = Layers(count=2, attention=Attention(heads=4, kv_heads=2, head_dim=16), ffn=Ffn(width=128))


def model(**changes: object) -> Model:
    fields: dict[str, object] = {
        "name": "tiny",
        "hidden": 64,
        "vocab": 100,
        "layers": [DENSE],
        "max_context_tokens": 512,
    }
    return Model(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, r"model\.name must not be empty"),
        ({"hidden": 0}, r"model\.hidden must be >= 1, got 0"),
        ({"vocab": -5}, r"model\.vocab must be >= 1, got -5"),
        ({"max_context_tokens": 0}, r"model\.max_context_tokens must be >= 1"),
        ({"layers": []}, r"model\.layers must hold at least one"),
        ({"embedding_dim": 64}, r"model\.embedding_dim must lie in \[0, hidden=64\)"),
        ({"learned_positions": 100}, r"model\.learned_positions must be 0 or >= max_context_tokens=512, got 100"),
        ({"mtp_layers": -1}, r"model\.mtp_layers must be >= 0"),
        ({"weight_bytes": 0.0}, r"model\.weight_bytes must lie in \(0, 4\], got 0"),
        ({"kv_bytes": float("nan")}, r"model\.kv_bytes must lie in \(0, 4\], got nan"),
        ({"embedding_bytes": 8.0}, r"model\.embedding_bytes must lie in \(0, 4\]"),
        ({"expert_weight_bytes": 0.5}, r"model\.expert_weight_bytes has no effect without moe layers"),
        ({"state_bytes": 2.0}, r"model\.state_bytes must be > 0 with linear attention layers and 0 without"),
        ({"active_tables": 3}, r"model\.active_tables must be 0, 1 or 2"),
        ({"active_tables": 1}, r"model\.active_tables has no effect without active_params"),
        ({"total_params": 1e9, "active_params": 2e9}, r"model\.active_params must be <= total_params=1e\+09"),
    ],
)
def test_bounds(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**changes)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"model must be one of .*qwen3_32b.*, got 'gpt5'"):
        read_model("gpt5")


@pytest.mark.parametrize("name", known_models())
def test_drafts_are_smaller_models_of_the_catalogue(name: str) -> None:
    target = read_model(name)
    assert target.source
    if target.draft:
        draft = read_model(target.draft)
        assert draft.total_params < target.total_params
        # Ids must mean the same; vocabularies of one tokenizer are padded differently, by less than 1 %.
        assert draft.vocab == pytest.approx(target.vocab, rel=0.01)


def test_the_catalogue_pairs_the_papers_models() -> None:
    assert read_model("qwen2_57b_a14b").draft == "qwen2_0_5b"
    assert read_model("opt_30b").draft == "opt_350m"
    assert read_model("qwen3_32b").draft == "qwen3_0_6b"


def test_a_narrow_embedding_is_projected_before_the_head() -> None:
    names = [(x.name, x.n, x.k) for x in read_model("opt_350m").outer_linears()]
    assert names == [("project_in", 1024, 512), ("project_out", 512, 1024), ("lm_head", 50272, 512)]


def test_sparsity_changes_moe_layers_only_and_forgets_published_figures() -> None:
    v3 = read_model("deepseek_v3")
    changed = with_sparsity(v3, experts=64, experts_per_token=4, shared_width=0)
    assert changed.layers[0] == v3.layers[0]
    assert changed.layers[1].ffn == replace(v3.layers[1].ffn, experts=64, experts_per_token=4, shared_width=0)
    assert changed.total_params == changed.active_params == changed.active_tables == 0
    assert v3 == read_model("deepseek_v3")
    assert with_sparsity(v3).layers == v3.layers


def test_sparsity_is_checked() -> None:
    with pytest.raises(ValueError, match="has no moe layer"):
        with_sparsity(read_model("qwen3_32b"), experts=8)
    with pytest.raises(ValueError, match=r"ffn\.experts_per_token must be <= ffn\.experts=128, got 129"):
        with_sparsity(read_model("qwen3_30b_a3b"), experts_per_token=129)


def test_models_load_without_the_simulator_or_the_command_line() -> None:
    code = (
        "import sys; from sim.model import read_model; import sim.huggingface, sim.footprint; read_model('qwen3_32b');"
        "print(sorted({'simpy', 'hydra', 'pandas', 'scipy', 'plotly'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
