"""The routed experts of one layer: top-k, rows gathered by expert, two grouped GEMMs around the activation, sum.

The router's own GEMM is a dense one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import gelu, silu

from sim.profiling.place import Place

GroupedGemm = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(rows [r, k], weights [experts, n, k], ends [experts] int32) -> [r, n]; rows of expert e end at `ends[e]`."""

KERNELS = ("grouped_mm", "loop", "vllm")


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """`up` [experts, matrices x width, hidden], gate before up where gated; `down` [experts, hidden, width]."""

    up: torch.Tensor
    down: torch.Tensor
    gated: bool


def kernels_at(place: Place) -> list[str]:
    """Kernels that can run here, the one that serves best first."""
    torch_has_it = _torch_grouped_mm() is not None and (not place.is_cuda or place.dtype == torch.bfloat16)
    engine = ["vllm"] if place.is_cuda and find_spec("vllm") is not None else []
    return [*engine, "grouped_mm" if torch_has_it else "loop"]


def random_experts(place: Place, experts: int, hidden: int, width: int, *, gated: bool) -> ExpertWeights:
    """Weights that keep the scale of what passes."""
    up = place.randn(experts, (2 if gated else 1) * width, hidden, scale=hidden**-0.5)
    return ExpertWeights(up, place.randn(experts, hidden, width, scale=width**-0.5), gated)


def choose_experts(logits: torch.Tensor, per_token: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(experts, shares) of each token, [tokens, per_token], from the router's `logits` [tokens, experts]."""
    shares, chosen = torch.softmax(logits.float(), dim=-1).topk(per_token, dim=-1)
    return chosen, shares


def apply_experts(
    hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor, weights: ExpertWeights, kernel: str
) -> torch.Tensor:
    """Output [tokens, hidden] of the experts `chosen` [tokens, per_token] (int64), summed with their `shares`."""
    if kernel == "vllm":
        from sim.profiling.engines import vllm_experts

        return vllm_experts(hidden, chosen, shares, weights)
    per_token = chosen.shape[1]
    ordered, order = chosen.flatten().sort(stable=True)
    # Not bincount: it waits for the device, which a CUDA graph cannot.
    experts = torch.arange(len(weights.up), device=hidden.device)
    ends = torch.searchsorted(ordered, experts, right=True, out_int32=True)
    multiply = grouped_gemm(kernel)
    inner = activate(multiply(hidden[order // per_token], weights.up, ends), gated=weights.gated)
    rows = multiply(inner, weights.down, ends)
    unsorted = torch.empty_like(rows).index_copy_(0, order, rows)
    return (unsorted.view(*chosen.shape, -1) * shares[..., None].to(rows.dtype)).sum(1)


def activate(rows: torch.Tensor, *, gated: bool) -> torch.Tensor:
    """SwiGLU of the gate and up halves, or GELU."""
    if not gated:
        return gelu(rows)
    gate, up = rows.chunk(2, dim=-1)
    return silu(gate) * up


def grouped_gemm(kernel: str) -> GroupedGemm:
    """The grouped GEMM by its name.

    Raises:
        ValueError: the name is unknown, or this torch does not have it.
    """
    if kernel == "loop":
        return loop_gemm
    product = _torch_grouped_mm() if kernel == "grouped_mm" else None
    if product is None:
        raise ValueError(f"experts kernel must be one of {', '.join(KERNELS)} and be there, got {kernel!r}")
    return lambda rows, weights, ends: product(rows, weights.transpose(1, 2), offs=ends)


def loop_gemm(rows: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """One GEMM per expert that has rows: what every grouped kernel must equal. Waits for the device."""
    out = rows.new_empty(len(rows), weights.shape[1])
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            torch.mm(rows[start:end], weights[expert].t(), out=out[start:end])
        start = end
    return out


def _torch_grouped_mm() -> Callable[..., torch.Tensor] | None:
    """`torch.nn.functional.grouped_mm`, private before torch 2.10."""
    found = getattr(torch.nn.functional, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
    return found if callable(found) else None


def router_logits(chosen: NDArray[np.int64], experts: int, place: Place) -> torch.Tensor:
    """Logits [tokens, experts] by which a router chooses `chosen` [tokens, per_token]."""
    logits = place.randn(len(chosen), experts)
    picked = torch.from_numpy(chosen).to(place.device)
    return logits.scatter_add_(1, picked, torch.full_like(picked, 100, dtype=place.dtype))


def route(tokens: int, experts: int, per_token: int, routing: str, seed: int = 0) -> NDArray[np.int64]:
    """Experts of each token, [tokens, per_token]; the same on every machine.

    Args:
        tokens: tokens that enter the layer.
        experts: routed experts.
        per_token: experts of each token, all different.
        routing: uniform; zipf_<s>, expert e drawn in proportion to (e + 1)^-s; pool_<n>, uniform over n experts, each
            of which gets a token where there are enough (tokens and distinct experts vary apart from each other).
        seed: of the draw.

    Raises:
        ValueError: an unknown routing, or a pool smaller than per_token or larger than experts.
    """
    rng = np.random.default_rng(seed)
    word, _, figure = routing.partition("_")
    weights: NDArray[np.float64] = np.ones(experts)
    if word == "zipf" and figure:
        weights = np.exp(-float(figure) * np.log(np.arange(experts) + 1.0))
    elif word == "pool" and figure:
        if not per_token <= int(figure) <= experts:
            raise ValueError(f"routing pool_<n> needs n in [{per_token}, {experts}], got {routing!r}")
        return _deal(rng, tokens, int(figure), per_token)
    elif routing != "uniform":
        raise ValueError(f"routing must be uniform, zipf_<s> or pool_<n>, got {routing!r}")
    # The largest of log-weight plus Gumbel noise: draws without replacement in proportion to the weights.
    noisy = np.log(weights) + rng.gumbel(size=(tokens, experts))
    chosen = np.argpartition(-noisy, per_token - 1, axis=1)[:, :per_token]
    return chosen.astype(np.int64)


def _deal(rng: np.random.Generator, tokens: int, pool: int, per_token: int) -> NDArray[np.int64]:
    """`pool` experts dealt out in turn, which spreads any run of per_token of them over different experts."""
    dealt = np.arange(tokens * per_token) % pool
    return rng.permutation(pool)[dealt].reshape(tokens, per_token).astype(np.int64)
