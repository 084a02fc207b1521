"""Work: floating-point operations and memory traffic, and the roofline that turns them into seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.cost.shape import Seconds

Amount = Any
"""A float or a float64 array; arithmetic between the two is beyond what the stubs of numpy can follow."""


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


def pnorm(a: Amount, b: Amount, exponent: float) -> Amount:
    """(a^p + b^p)^(1/p) of non-negative `a` and `b`: their maximum for p = inf, never below it, their sum for p = 1."""
    larger = np.maximum(a, b)
    if np.isinf(exponent):
        return larger
    ratio = np.minimum(a, b) / np.where(larger > 0, larger, 1.0)
    return larger * (1.0 + ratio**exponent) ** (1.0 / exponent)
