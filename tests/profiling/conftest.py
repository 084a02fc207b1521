"""Tiny models on one CPU thread."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 64,
    "vocab_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
}
DENSE = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "vocab_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def moe_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(tmp_path_factory.mktemp("models") / "tiny_moe.json", MOE)


@pytest.fixture(scope="session")
def dense_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(tmp_path_factory.mktemp("models") / "tiny_dense.json", DENSE)


def _written(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(json.dumps(config), "utf-8")
    return path
