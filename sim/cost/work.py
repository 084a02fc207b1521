"""Work: floating-point operations and memory traffic of one op on one GPU, and the roofline that bounds its time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.cost.shape import Seconds

Amount = Any
"""A float or a float64 array; arithmetic between the two is beyond what the stubs of numpy can follow."""

ACTIVATION_BYTES = 2
"""bf16 activations, whatever the weights."""


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs and bytes that one GPU has to move, scalars or float64 arrays of one shape."""

    flops: Amount = 0.0
    bytes: Amount = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, factor: Amount) -> Work:
        return Work(self.flops * factor, self.bytes * factor)

    __rmul__ = __mul__

    def bound_s(self, peaks: Peaks) -> Seconds:
        """Seconds that no implementation can beat: max(flops / peak, bytes / bandwidth)."""
        seconds: Seconds = np.maximum(self.flops / peaks.flops_per_s, self.bytes / peaks.bytes_per_s)
        return seconds


@dataclass(frozen=True, slots=True)
class Peaks:
    """What one GPU can do at most, at one data type."""

    flops_per_s: float
    bytes_per_s: float
    sm_count: int


@dataclass(frozen=True, slots=True)
class Gemm:
    """y[m, n] = x[m, k] W on one rank. Weights, inputs and outputs are moved once; no rows, no work."""

    m: Amount
    n: Amount
    k: Amount
    weight_bytes: float = 2.0

    @property
    def work(self) -> Work:
        """2 m n k FLOPs."""
        m: Amount = np.asarray(self.m, dtype=np.float64)[()]
        weights = self.n * self.k * self.weight_bytes * np.greater(m, 0)
        return Work(2.0 * self.n * self.k * m, weights + ACTIVATION_BYTES * (self.n + self.k) * m)


@dataclass(frozen=True, slots=True)
class GroupedGemm:
    """The routed experts of one layer on one rank.

    Attributes:
        experts: distinct experts that get a row.
        rows: (token, expert) rows of all of them.
        hidden: model width.
        width: inner width of an expert on the rank.
        matrices: matrices of an expert, 3 where gated.
        weight_bytes: bytes of one weight.
        skew: how uneven the rows lie: 0 as in even routing, 1 as in the power laws of the benchmarks.
        absent_rows: rows of experts on other ranks: vLLM's kernels write zeros for them (`write_zeros_to_output`), and
            the reduction reads those with the rest. An engine could leave that out, so it is not in `work`.
    """

    experts: Amount
    rows: Amount
    hidden: Amount
    width: Amount
    matrices: Amount
    weight_bytes: Amount = 2.0
    skew: Amount = 0.0
    absent_rows: Amount = 0.0

    @property
    def absent_bytes(self) -> Amount:
        """Traffic of the absent rows."""
        return 2 * ACTIVATION_BYTES * self.hidden * self.absent_rows

    @property
    def elements(self) -> Amount:
        """Weights of one expert."""
        return self.matrices * self.hidden * self.width

    @property
    def work(self) -> Work:
        """Weights of the distinct experts once, rows in and out of the GEMMs, 2 FLOPs per weight and row."""
        moved = self.experts * self.elements * self.weight_bytes
        row_bytes = ACTIVATION_BYTES * (2 * self.hidden + self.matrices * self.width)
        return Work(2.0 * self.rows * self.elements, moved + self.rows * row_bytes)


@dataclass(frozen=True, slots=True)
class AttentionCore:
    """Attention over a cache, the matrices apart, on one rank.

    Attributes:
        work: FLOPs and bytes.
        sequences: sequences.
        blocks: independent (sequence, KV head, tile of query rows) blocks.
        tokens: keys that one query row of a sequence attends to at most (mean over the sequences).
        width: half the cached elements of a token in one KV head; the head width of plain attention.
    """

    work: Work
    sequences: Amount
    blocks: Amount
    tokens: Amount
    width: Amount


def at_least(amount: Amount, least: int) -> Amount:
    """The larger of both, elementwise."""
    return max(amount, least) if isinstance(amount, int) else np.maximum(amount, least)


def pnorm(a: Amount, b: Amount, exponent: float) -> Amount:
    """(a^p + b^p)^(1/p) of non-negative `a` and `b`: their maximum for p = inf, never below it, their sum for p = 1."""
    if isinstance(a, float) and isinstance(b, float):  # numpy takes ten times as long for single numbers
        smaller, larger = min(a, b), max(a, b)
        if not larger or math.isinf(exponent):
            return larger
        return larger * (1.0 + (smaller / larger) ** exponent) ** (1.0 / exponent)
    larger = np.maximum(a, b)
    if math.isinf(exponent):
        return larger
    ratio = np.minimum(a, b) / np.where(larger > 0, larger, 1.0)
    return larger * (1.0 + ratio**exponent) ** (1.0 / exponent)
