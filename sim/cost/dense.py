"""Dense GEMMs: every weight matrix but the routed experts, as tensor parallelism cuts it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sim.attention import Linear
from sim.cost.attention import ACTIVATION_BYTES
from sim.cost.constants import Efficiency
from sim.cost.shape import Count, Seconds
from sim.cost.work import Amount, Peaks, Work


def linear_work(linear: Linear, tokens: Amount, weight_bytes: float, tensor_parallel: int) -> Work:
    """y[t, n] = x[t, k] W on one rank: 2 t n k FLOPs; weights, inputs and outputs moved once. No tokens, no work.

    Keys and values that TP replicates (fewer KV heads than ranks) count as cut: at most a few percent of a layer.
    """
    n = linear.n / tensor_parallel if linear.split == "column" else float(linear.n)
    k = linear.k / tensor_parallel if linear.split == "row" else float(linear.k)
    weights = n * k * weight_bytes * np.greater(tokens, 0)
    return Work(2.0 * n * k * tokens, weights + ACTIVATION_BYTES * (n + k) * tokens)


def linears_work(linears: Iterable[Linear], tokens: Count, weight_bytes: float, tensor_parallel: int) -> Work:
    """All of them together."""
    return sum((linear_work(linear, tokens, weight_bytes, tensor_parallel) for linear in linears), Work())


def linears_seconds(
    linears: Iterable[Linear],
    tokens: Count,
    weight_bytes: float,
    tensor_parallel: int,
    efficiency: Efficiency,
    peaks: Peaks,
) -> Seconds:
    """Seconds of the matrices one after the other, one GEMM each."""
    total: Seconds = 0.0
    for linear in linears:
        total = total + efficiency.seconds(linear_work(linear, tokens, weight_bytes, tensor_parallel), peaks)
    return total
