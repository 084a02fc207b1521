"""Reads a Hugging Face `config.json` as a Model: attention, FFN and quantisation derived from its keys, per layer.

Keys decide, not architecture names, so that a new model of a known shape reads without a change here. What cannot be
derived is refused, never guessed.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from sim.attention import check
from sim.huggingface.attention import attention, attention_kinds
from sim.huggingface.ffn import ffn, moe_layers
from sim.huggingface.keys import EXPERT_WIDTH, EXPERTS, TIED, Config, first
from sim.huggingface.quantization import read_quantization
from sim.layers import Layers
from sim.model import Model

_BASE = (
    ("hidden_size",),
    ("vocab_size",),
    ("num_hidden_layers",),
    ("num_attention_heads",),
    ("max_position_embeddings",),
)
_LATENT = (("qk_nope_head_dim",), ("qk_rope_head_dim",), ("v_head_dim",))
_LINEAR = tuple(
    (f"linear_{part}",)
    for part in ("num_value_heads", "num_key_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim")
)
_INDEXER = (("index_n_heads",), ("index_head_dim",))

_UNREAD = (
    "block_configs", "d_conv", "d_state", "global_attn_every_n_layers", "hybrid_override_pattern",
    "layers_block_type", "mamba_d_state", "moe_layer_start_index", "num_dense_layers", "num_kv_shared_layers",
    "parallel_attn", "recurrent_block_type", "ssm_cfg",
)  # fmt: skip
"""Keys that change what a layer is in a way this reader does not know."""


def model_from_config(path: str | Path) -> Model:
    """The model that the `config.json` at `path` describes; the text model of a multimodal one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, keys are missing, or the architecture is unknown; the message names the file and the keys.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    check(isinstance(raw, dict), f"{path}: must hold a JSON object, got {type(raw).__name__}")
    nested = raw.get("text_config")
    config = {**raw, **nested} if isinstance(nested, dict) else raw
    _refuse_unknown(config, path)
    fallback = path.resolve().parent.name if path.stem == "config" else path.stem
    try:
        return _model(config, str(config.get("_name_or_path") or fallback))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_unknown(config: Config, path: Path) -> None:
    """ValueError naming every key that is missing, or that would change the layers unseen."""
    experts = first(config, EXPERTS)
    needed: list[tuple[str, ...]] = list(_BASE)
    if config.get("kv_lora_rank"):
        needed += [*_LATENT, *(_INDEXER if config.get("index_topk") else ())]
    if config.get("full_attention_interval") or "linear_attention" in (config.get("layer_types") or ()):
        needed += _LINEAR
    if experts:
        needed += [("num_experts_per_tok",), EXPERT_WIDTH]
    else:
        needed += [("intermediate_size", "ffn_dim")]
    missing = [" or ".join(keys) for keys in needed if first(config, keys) is None]
    who = f"{path}: config {config.get('model_type', 'of no model_type')!r}"
    check(not missing, f"{who} lacks {', '.join(missing)}, needed to derive its layers; write a model YAML")
    wrong = [key for (key,) in _BASE if type(config[key]) is not int or config[key] < 1]
    check(not wrong, f"{who}: {', '.join(wrong)} must be whole numbers >= 1")
    unread = [key for key in _UNREAD if config.get(key)]
    if set(config.get("attn_type_list") or ()) - {1}:  # MiniMax: 1 is full attention
        unread.append("attn_type_list")
    check(not unread, f"{who} holds {', '.join(unread)}, which make layers unknown here; write a model YAML")
    check(not config.get("is_encoder_decoder"), f"{who}: is_encoder_decoder must be false; only decoders are modelled")


def _model(config: Config, name: str) -> Model:
    positions = int(config["max_position_embeddings"])
    is_opt = config.get("model_type") == "opt"
    hidden = int(config["hidden_size"])
    embedding = int(config.get("word_embed_proj_dim") or hidden)
    runs = _runs(config)
    moe = any(run.ffn.kind == "moe" for run in runs)
    weights = read_quantization(config.get("quantization_config") or {}, moe)
    return Model(
        name=name,
        hidden=hidden,
        vocab=int(config["vocab_size"]),
        layers=runs,
        tied_embeddings=bool(config.get("tie_word_embeddings", config.get("model_type") in TIED)),
        embedding_dim=0 if embedding == hidden else embedding,
        max_context_tokens=positions,
        learned_positions=positions + 2 if is_opt else 0,  # the first two rows are padding
        mtp_layers=_mtp_layers(config),
        weight_bytes=weights.weight_bytes,
        expert_weight_bytes=weights.expert_weight_bytes,
        kv_bytes=weights.kv_bytes,
        state_bytes=2.0 if any(run.attention.kind == "linear" for run in runs) else 0.0,
    )


def _mtp_layers(config: Config) -> int:
    """Prediction modules in the checkpoint (MiniMax-M2 declares num_mtp_modules, but ships none of their weights)."""
    if config.get("model_type") == "qwen3_next":
        return 1  # shipped, though its config has no key for it
    return int(config.get("num_nextn_predict_layers") or 0)


def _runs(config: Config) -> list[Layers]:
    """Layers grouped by kind, in order of first appearance."""
    count = int(config["num_hidden_layers"])
    kinds = attention_kinds(config, count)
    sparse = moe_layers(config, count)
    return [
        Layers(count=number, attention=attention(config, kind), ffn=ffn(config, is_moe))
        for (kind, is_moe), number in Counter(zip(kinds, sparse, strict=True)).items()
    ]
