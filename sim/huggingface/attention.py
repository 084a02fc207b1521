"""The attention of every layer of a config."""

from __future__ import annotations

from sim.attention import Attention, check
from sim.huggingface.keys import OUT_BIAS, QKV_BIAS, Config

_LAYER_TYPES = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
}


def attention_kinds(config: Config, count: int) -> list[str]:
    """Attention kind of every layer, from the first of the conventions that its config follows."""
    if config.get("kv_lora_rank"):
        return ["sparse" if config.get("index_topk") else "mla"] * count
    if config.get("layer_types"):
        return _listed_kinds(config["layer_types"], count)
    if config.get("full_attention_interval"):
        interval = config["full_attention_interval"]
        return ["linear" if (i + 1) % interval else "full" for i in range(count)]
    if config.get("attention_chunk_size"):
        rope = config.get("no_rope_layers") or []
        interval = config.get("no_rope_layer_interval") or 4
        local = rope if len(rope) == count else [(i + 1) % interval for i in range(count)]
        return ["chunked" if is_local else "full" for is_local in local]
    return _windowed_kinds(config, count)


def _listed_kinds(types: list[str], count: int) -> list[str]:
    check(len(types) == count, f"layer_types must have num_hidden_layers={count} entries, got {len(types)}")
    unknown = sorted(set(types) - set(_LAYER_TYPES))
    check(not unknown, f"layer_types must be among {', '.join(_LAYER_TYPES)}, got {', '.join(unknown)}")
    return [_LAYER_TYPES[kind] for kind in types]


def _windowed_kinds(config: Config, count: int) -> list[str]:
    window = config.get("sliding_window")
    if not window or window >= config["max_position_embeddings"] or config.get("use_sliding_window") is False:
        return ["full"] * count
    pattern = config.get("sliding_window_pattern") or {"gpt_oss": 2, "gemma2": 2}.get(config.get("model_type", ""))
    if pattern:
        return ["sliding" if (i + 1) % pattern else "full" for i in range(count)]
    first = config.get("max_window_layers", 0) if config.get("use_sliding_window") else 0
    return ["sliding" if i >= first else "full" for i in range(count)]


def attention(config: Config, kind: str) -> Attention:
    """Attention of the layers of one kind."""
    heads = int(config["num_attention_heads"])
    if kind == "linear":
        return Attention(
            kind="linear",
            heads=config["linear_num_value_heads"],
            kv_heads=config["linear_num_key_heads"],
            head_dim=config["linear_key_head_dim"],
            value_dim=_value_dim(config["linear_value_head_dim"], config["linear_key_head_dim"]),
            conv_kernel=config["linear_conv_kernel_dim"],
        )
    if kind in ("mla", "sparse"):
        return _latent_attention(config, kind, heads)
    model_type = config.get("model_type")
    asked = config.get("enable_bias", True) if model_type == "opt" else config.get("attention_bias")
    return Attention(
        kind=kind,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        window_tokens=_window_tokens(config, kind),
        bias=bool(asked or config.get("use_qkv_bias") or model_type in QKV_BIAS),
        out_bias=bool((asked and model_type in OUT_BIAS) or config.get("use_bias")),
        output_gate=bool(config.get("attn_output_gate", model_type == "qwen3_next")),
    )


def _window_tokens(config: Config, kind: str) -> int:
    if kind == "full":
        return 0
    key = {"sliding": "sliding_window", "chunked": "attention_chunk_size"}[kind]
    check(bool(config.get(key)), f"{key} must be set, the config has {kind} layers")
    return int(config[key])


def _latent_attention(config: Config, kind: str, heads: int) -> Attention:
    head_dim = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
    return Attention(
        kind=kind,
        heads=heads,
        kv_heads=1,
        head_dim=head_dim,
        value_dim=_value_dim(config["v_head_dim"], head_dim),
        q_rank=config.get("q_lora_rank") or 0,
        kv_rank=config["kv_lora_rank"],
        rope_dim=config["qk_rope_head_dim"],
        top_k_tokens=config["index_topk"] if kind == "sparse" else 0,
        index_heads=config["index_n_heads"] if kind == "sparse" else 0,
        index_dim=config["index_head_dim"] if kind == "sparse" else 0,
    )


def _value_dim(value_dim: int, head_dim: int) -> int:
    return 0 if value_dim == head_dim else value_dim
