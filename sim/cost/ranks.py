"""What can be cut over how many GPUs: the rules of vLLM, which SGLang shares but for uneven experts."""

from __future__ import annotations

from sim.cost.routing import Routing
from sim.model import Model


def check_heads(model: Model, tensor_parallel: int) -> None:
    """Query heads are dealt evenly; KV heads too, or, where there are fewer than GPUs, each is held equally often.

    Raises:
        ValueError: `tensor_parallel` does not divide them so (vLLM: `verify_with_parallel_config` and the models).
    """
    if tensor_parallel < 1:
        raise ValueError(f"tensor_parallel must be >= 1, got {tensor_parallel}")
    for run in model.layers:
        heads, kv_heads = run.attention.heads, run.attention.kv_heads
        if heads % tensor_parallel:
            raise ValueError(
                f"tensor_parallel must divide the {heads} attention heads of {model.name}, got {tensor_parallel}"
            )
        if kv_heads % tensor_parallel and tensor_parallel % kv_heads:
            raise ValueError(
                f"tensor_parallel must divide the {kv_heads} KV heads of {model.name} or be a multiple of them, "
                f"got {tensor_parallel}"
            )


def check_experts(model: Model, tensor_parallel: int, data_parallel: int, routing: Routing, *, whole: bool) -> None:
    """Routed experts over tensor_parallel x data_parallel GPUs: `whole` ones (expert parallelism), or all of them cut.

    Raises:
        ValueError: there is nothing to share, or it cannot be shared so.
    """
    if data_parallel < 1:
        raise ValueError(f"data_parallel must be >= 1, got {data_parallel}")
    ranks = tensor_parallel * data_parallel
    if data_parallel > 1 and not model.is_moe:
        raise ValueError(
            f"data_parallel must be 1 for the dense {model.name}, got {data_parallel}: its groups would share nothing "
            "(vLLM: run independent instances); use cluster.replicas"
        )
    if whole and not (model.is_moe and ranks > 1):
        raise ValueError(f"expert_parallel has no effect on {model.name} over {ranks} GPUs; set it to false")
    for run in model.layers:
        if run.ffn.kind == "moe" and whole:
            _check_whole(model.name, run.ffn.experts, ranks, routing.redundant_experts)
        elif run.ffn.kind == "moe" and run.ffn.expert_width % ranks:
            raise ValueError(
                f"tensor_parallel x data_parallel must divide the expert width {run.ffn.expert_width} of {model.name}, "
                f"got {ranks}; set expert_parallel"
            )


def _check_whole(name: str, experts: int, ranks: int, redundant: int) -> None:
    """vLLM deals unequal numbers of experts (`determine_expert_map`), but not beside redundant ones."""
    if ranks > experts:
        raise ValueError(
            f"tensor_parallel x data_parallel must be <= the {experts} experts of {name} under expert_parallel, "
            f"got {ranks}"
        )
    if redundant and (experts + redundant) % ranks:
        raise ValueError(
            f"routing.redundant_experts must make the {experts} experts of {name} a multiple of the {ranks} GPUs that "
            f"share them, got {redundant}; take {-experts % ranks or ranks}"
        )
