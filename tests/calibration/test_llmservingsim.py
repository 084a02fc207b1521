"""LLMServingSim's layer profiles, new and old."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.calibration.checks import Trace
from sim.calibration.importers import llmservingsim, llmservingsim_v0
from sim.calibration.importers.model_shapes import SHAPES
from sim.catalogue import load_model
from tests.calibration.tables import csv

META = "gpu: NVIDIA GeForce RTX 4090\nvllm_version: 0.19.0\nmodel: meta-llama/{model}\nvariant: bf16\n"


def profile(
    folder: Path, table: str, rows: dict[str, object], model: str = "Llama-3.1-8B", degree: int = 2, meta: str = META
) -> Trace:
    """One table of a new profile, through the importer."""
    base = folder / "RTX4090" / "org" / model / "bf16"
    path = csv(base / f"tp{degree}" / f"{table}.csv.gz", rows)
    (base / "meta.yaml").write_text(meta.format(model=model))
    return llmservingsim.read_file(path)


def test_dense_layers_become_sharded_gemms(tmp_path: Path) -> None:
    layers = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "layernorm", "rotary_emb", "act_fn", "new_layer"]
    table = {"layer": layers, "tokens": 16, "time_us": [40.0, 30, 130, 70, 4, 5, 6, 7]}
    rows = profile(tmp_path, "dense", table).rows.set_index("layer")
    assert [tuple(rows.loc[name, ["m", "n", "k"]]) for name in layers[:4]] == [
        (16, 3072, 4096), (16, 4096, 2048), (16, 14336, 4096), (16, 4096, 7168),
    ]  # fmt: skip
    assert list(rows["op"]) == ["gemm"] * 4 + ["norm", "rope", "activation", "layer"]
    assert rows["latency_s"].iloc[0] == pytest.approx(40e-6)
    assert set(rows["gpu"]) == {"rtx4090"}
    assert set(rows["engine_version"]) == {"0.19.0"}
    assert not rows["graph"].any()


def test_lm_head_and_sampler_see_the_cut_vocabulary(tmp_path: Path) -> None:
    table = {"layer": ["lm_head", "sampler"], "sequences": 8, "time_us": [600.0, 60.0]}
    rows = profile(tmp_path, "per_sequence", table).rows
    assert list(rows["op"]) == ["lm_head", "sampling"]
    assert list(rows["vocabulary"]) == [64128, 64128]


def test_attention_axes_become_three_ops(tmp_path: Path) -> None:
    table = {
        "prefill_chunk": [512, 0, 512], "kv_prefill": [1024, 0, 1024], "n_decode": [0, 8, 8],
        "kv_decode": [0, 2048, 2048], "time_us": [200.0, 80.0, 290.0],
    }  # fmt: skip
    rows = profile(tmp_path, "attention", table).rows.set_index("op")
    shape = ["batch", "width", "context_tokens"]
    assert rows.loc["attention_prefill", shape].tolist() == [1, 512, 1024]
    assert rows.loc["attention_decode", shape].tolist() == [8, 1, 2048]
    assert rows.loc["attention_mixed", [*shape, "chunk_tokens", "chunk_context_tokens"]].tolist() == [
        8,
        1,
        2048,
        512,
        1024,
    ]
    assert set(rows["heads"]) == {16}
    assert set(rows["kv_heads"]) == {4}


def test_skewed_batches_come_with_the_uniform_ones_they_lie_between(tmp_path: Path) -> None:
    """Sums of three iterations; the second row lies far above the batch at its longest."""
    table = {
        "regime": "pure", "n": 4, "nb": [1, 2], "ratio": 0.25, "skew": 4.0, "pc": 0, "kp": 0, "kvs": 1024,
        "kv_big": 4096, "kv_mean": [1792, 2560], "t_mean_us": [60.0, 75.0], "t_max_us": [120.0, 120.0],
        "t_skew_us": [90.0, 900.0], "alpha": 0.5,
    }  # fmt: skip
    result = profile(tmp_path, "skew", table)
    skewed = result.rows[result.rows["op"] == "attention_skewed"]
    assert skewed["latency_s"].tolist() == pytest.approx([30e-6])
    assert skewed[["context_tokens", "long_sequences", "long_context_tokens"]].iloc[0].tolist() == [1024, 1, 4096]
    uniform = result.rows[result.rows["layer"] == "uniform_at_mean"]
    assert uniform["context_tokens"].tolist() == [1792, 2560]
    assert uniform["latency_s"].tolist() == pytest.approx([20e-6, 25e-6])
    assert [(item.rows, item.first_row) for item in result.rejected] == [(1, 1)]


def test_moe_blocks_carry_the_forced_experts(tmp_path: Path) -> None:
    table = {"tokens": [1, 16], "activated_experts": [8, 64], "time_us": [50.0, 420.0]}
    rows = profile(tmp_path, "moe", table, model="Qwen3-30B-A3B-Instruct-2507", degree=1).rows
    assert list(rows["distinct_experts"]) == [8, 64]
    assert list(rows["routed_tokens"]) == [8, 128]
    assert set(rows["routing"]) == {"forced"}
    ranks = {"ep": [1, 2], **table}
    path = csv(tmp_path / "Qwen3-30B-A3B-Instruct-2507__bf16__tp1__moe.csv", ranks)
    result = llmservingsim.read_file(path)
    assert len(result.rows) == 1
    assert "tokens are those of one rank" in result.rejected[0].reason


def test_a_dense_model_has_no_moe_table(tmp_path: Path) -> None:
    table = {"tokens": [1], "activated_experts": [8], "time_us": [50.0]}
    assert "experts is empty; moe_block needs it" in str(profile(tmp_path, "moe", table).rejected[0])


@pytest.mark.parametrize(
    ("table", "rows", "meta", "message"),
    [
        ("skew_fit", {"pc": [0]}, META, r"skew_fit\.csv\.gz: no importer for a table of that name; known: dense"),
        (
            "dense",
            {"layer": ["o_proj"], "tokens": 1, "time_ms": 1.0},
            META,
            r"dense\.csv\.gz: column time_us is missing",
        ),
        ("dense", {"tokens": [1], "time_us": 1.0}, META, r"dense\.csv\.gz: column layer is missing"),
        ("dense", {"layer": ["o_proj"]}, META.replace("{model}", "Llama-9"), r"dense\.csv\.gz: model must be one of"),
        ("dense", {"layer": ["o_proj"]}, "gpu: x\n", r"meta\.yaml: vllm_version, model, variant is missing"),
        ("dense", {"layer": ["o_proj"]}, META.replace("bf16", "fp3"), r"dense\.csv\.gz: dtype must be one of"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tmp_path: Path, table: str, rows: dict[str, object], meta: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        profile(tmp_path, table, rows, meta=meta)


def _old(folder: Path, rows: dict[str, object], gpu: str = "H100", degree: int = 2) -> Trace:
    path = folder / gpu / "org" / "Mixtral-8x7B-v0.1" / f"tp{degree}" / "layers.csv.gz"
    return llmservingsim_v0.read_file(csv(path, rows))


def test_old_profiles_say_that_they_are_hugging_face_modules(tmp_path: Path) -> None:
    layers = ["q_proj", "expert.w1", "expert.w2", "gate", "input_layernorm", "lm_head"]
    table = {
        "layer_name": layers,
        "input": 16,
        "kv_cache": 0,
        "tp_size": 2,
        "latency(ns)": [2e4, 5e4, 5e4, 9e3, 2e4, 9e4],
    }
    result = _old(tmp_path, table)
    assert result.rejected == ()
    rows = result.rows.set_index("layer")
    assert set(rows["engine"]) == {"transformers"}
    assert tuple(rows.loc["q_proj", ["n", "k"]]) == (2048, 4096)
    assert tuple(rows.loc["expert.w2", ["n", "k"]]) == (4096, 14336)  # whole, whatever the degree
    assert rows.loc["q_proj", "latency_s"] == pytest.approx(20e-6)


def test_old_layers_that_were_not_timed_go_as_a_whole(tmp_path: Path) -> None:
    """One size at 4 PFLOP/s condemns all sizes of q_proj; o_proj broke off after one of three sizes."""
    sizes = [1, 16, 2048]
    table = {
        "layer_name": ["q_proj"] * 3 + ["k_proj"] * 3 + ["o_proj"], "input": [*sizes, *sizes, 1], "kv_cache": 0,
        "tp_size": 1, "latency(ns)": [1000, 1000, 1000, 20000, 20000, 30000, 2000],
    }  # fmt: skip
    result = _old(tmp_path, table, degree=1)
    assert set(result.rows["layer"]) == {"k_proj"}
    assert {item.rows: item.first_row for item in result.rejected} == {3: 0, 1: 6}


def test_old_profiles_of_other_hardware_are_set_aside(tmp_path: Path) -> None:
    table = {"layer_name": ["q_proj"], "input": 16, "tp_size": 1, "latency(ns)": 2e4}
    assert "gpu is 'TPU-v6e-1'" in _old(tmp_path, table, gpu="TPU-v6e-1", degree=1).rejected[0].reason
    with pytest.raises(ValueError, match=r"layers\.csv\.gz: tp_size must be 2 as in the folder, got 1"):
        _old(tmp_path, table)
    with pytest.raises(ValueError, match=r"column latency\(ns\) is missing"):
        _old(tmp_path, {"layer_name": ["q_proj"], "input": 16, "tp_size": 2, "latency(us)": 20.0})


@pytest.mark.parametrize(
    ("name", "catalogued"),
    [
        ("Llama-3.1-8B", "llama31_8b"), ("Llama-3.1-70B", "llama31_70b"), ("Llama-3.2-1B-Instruct", "llama32_1b"),
        ("Qwen3-8B", "qwen3_8b"), ("Qwen3-32B", "qwen3_32b"), ("Qwen3-30B-A3B-Instruct-2507", "qwen3_30b_a3b"),
        ("Mixtral-8x7B-v0.1", "mixtral_8x7b"),
    ],
)  # fmt: skip
def test_shapes_agree_with_the_catalogue(name: str, catalogued: str) -> None:
    shapes, model = SHAPES[name], load_model(catalogued, "model")
    attention, ffn = model.layers[0].attention, model.layers[0].ffn
    assert (shapes.hidden, shapes.vocabulary) == (model.hidden, model.vocab)
    assert (shapes.heads, shapes.kv_heads, shapes.head_dim) == (attention.heads, attention.kv_heads, attention.head_dim)
    if shapes.experts:
        assert (shapes.experts, shapes.experts_per_token) == (ffn.experts, ffn.experts_per_token)
        assert shapes.expert_width == ffn.expert_width
    else:
        assert shapes.width == ffn.width


def test_published_skew_times_are_three_times_those_of_attention(shared_data: Path) -> None:
    """Why skew.csv is divided by three: the uniform batches in it are also rows of attention.csv."""
    folder = shared_data / "llmservingsim/profiles_v1/RTX4090/meta-llama/Llama-3.1-8B/bf16/tp1"
    keys = ["batch", "context_tokens", "chunk_tokens", "chunk_context_tokens"]
    attention = llmservingsim.read_file(folder / "attention.csv.gz").rows
    skew = llmservingsim.read_file(folder / "skew.csv.gz").rows
    uniform = skew[skew["layer"] == "uniform_at_longest"]
    both = attention.merge(uniform, on=keys, suffixes=("", "_skew"))
    assert len(both) > 1000
    assert np.median(both["latency_s_skew"] / both["latency_s"]) == pytest.approx(1.0, abs=0.03)


def test_published_profiles_import(shared_data: Path) -> None:
    """Every table of the MoE model, the A10G's dense layers, and an old profile."""
    root = shared_data / "llmservingsim"
    moe = root / "profiles_v1/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16/tp1"
    tables = [path for path in sorted(moe.glob("*.csv.gz")) if not path.name.startswith("skew_fit")]
    result = llmservingsim.read_files(tables)
    assert len(result.rows) == 19364 + 1064 + 50 + 80 + 38898
    assert sum(item.rows for item in result.rejected) == 129
    old = root / "profiles_v0_forks/H100/Qwen/Qwen3-8B/tp1/layers.csv.gz"
    result = llmservingsim_v0.read_file(old)
    gemms = result.rows[result.rows["op"] == "gemm"]
    assert set(gemms["layer"]) == {"q_proj", "k_proj"}  # the others took 1 us whatever the size
