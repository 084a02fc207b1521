"""The FFN of every layer of a config, and which layers have experts."""

from __future__ import annotations

from sim.attention import check
from sim.huggingface.keys import EXPERT_WIDTH, EXPERTS, UNGATED, Config, first
from sim.layers import Ffn


def moe_layers(config: Config, count: int) -> list[bool]:
    """Which layers have routed experts; every convention must agree, and those a config lacks agree."""
    if not first(config, EXPERTS):
        return [False] * count
    dense = config.get("mlp_only_layers") or ()
    leading = config.get("first_k_dense_replace") or 0
    frequency = config.get("moe_layer_freq") or 1
    step = config.get("decoder_sparse_step") or config.get("interleave_moe_layer_step") or 1
    listed = config.get("moe_layers")
    return [
        i >= leading
        and i not in dense
        and (i + 1) % step == 0
        and bool(frequency[i] if isinstance(frequency, list) else i % frequency == 0)
        and (not listed or i in listed)
        for i in range(count)
    ]


def ffn(config: Config, sparse: bool) -> Ffn:
    """FFN of the layers with experts (`sparse`) or without."""
    model_type = config.get("model_type")
    gated = model_type not in UNGATED
    if not sparse:
        width = first(config, ("intermediate_size_mlp", "ffn_dim", "intermediate_size"))
        check(bool(width), "intermediate_size must be set, the config has dense layers")
        bias = (
            config.get("enable_bias", True) if model_type == "opt" else config.get("mlp_bias") or config.get("use_bias")
        )
        return Ffn(width=width, gated=gated, bias=bool(bias))
    return Ffn(
        kind="moe",
        gated=gated,
        experts=first(config, EXPERTS),
        experts_per_token=config["num_experts_per_tok"],
        expert_width=first(config, EXPERT_WIDTH),
        shared_width=_shared_width(config),
        bias=model_type == "gpt_oss",
    )


def _shared_width(config: Config) -> int:
    """Width of the shared experts together: given, or their number times the width of one."""
    given = first(config, ("shared_expert_intermediate_size", "shared_intermediate_size"))
    if given is not None:
        return int(given)
    if str(config.get("model_type", "")).startswith("llama4"):
        return int(config["intermediate_size"])  # one shared expert, as wide as a routed one
    number = first(config, ("n_shared_experts", "num_shared_experts")) or 0
    each = first(config, ("moe_shared_expert_intermediate_size", "moe_intermediate_size", "intermediate_size"))
    return int(number) * int(each)
