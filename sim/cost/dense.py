"""Dense GEMMs: every weight matrix but the routed experts, as tensor parallelism cuts it."""

from __future__ import annotations

from collections.abc import Iterable

from sim.attention import Linear
from sim.cost.work import Amount, Gemm, Work


def gemm(linear: Linear, tokens: Amount, weight_bytes: float, tensor_parallel: int) -> Gemm:
    """The part of `linear` that one rank computes for `tokens` rows.

    Keys and values that TP replicates (fewer KV heads than ranks) count as cut: at most a few percent of a layer.
    """
    n = linear.n / tensor_parallel if linear.split == "column" else float(linear.n)
    k = linear.k / tensor_parallel if linear.split == "row" else float(linear.k)
    return Gemm(tokens, n, k, weight_bytes)


def linears_work(linears: Iterable[Linear], tokens: Amount, weight_bytes: float, tensor_parallel: int) -> Work:
    """FLOPs and bytes of all of them together on one rank."""
    return sum((gemm(linear, tokens, weight_bytes, tensor_parallel).work for linear in linears), Work())
