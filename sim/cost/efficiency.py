"""How close the kernels of one op family come to the roofline: a few constants per GPU and engine, no shape among them.

The forms are those that measured tables ask for (`docs/accuracy.md`); `sim.calibration` fits the constants. Every price
is at least flops / peak and bytes / bandwidth, and grows with the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np

from sim.cost.shape import Seconds
from sim.cost.work import ACTIVATION_BYTES, Amount, AttentionCore, Gemm, GroupedGemm, Peaks, Work, pnorm

_SMALLEST_BLOCK = 16
"""Rows of the smallest tile of a tensor-core GEMM."""

_FULL_ROWS = 256
"""Rows above which a GEMM's tiles grow no further."""

_USUAL_DEPTH = 4096
_USUAL_WIDTH = 128
"""The k (or hidden width) and the head width at which the constants below are quoted."""

_PASSES = ("input_passes",)
"""Constants that count times at full bandwidth."""

_SPLIT_TOKENS = 128
"""Cached tokens of one sequence above which decode kernels split it and combine the parts."""


@dataclass(kw_only=True, slots=True)
class Fit:
    """How the constants of a family were found.

    Attributes:
        rows, groups: measured rows and shape groups behind them.
        in_sample_error: mean absolute relative error over those rows.
        noise: scatter of the measurements themselves, relative.
        standard_errors: constant -> its standard error, clustered by group; absent for one that lies on its bound.
    """

    rows: int
    groups: int
    in_sample_error: float
    noise: float
    standard_errors: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Efficiency:
    """The plain roofline: t = fixed_s + pnorm(flops / (e_c peak), bytes / (e_m bandwidth)).

    Attributes:
        memory_efficiency, compute_efficiency: e_m and e_c, in (0, 1], so that no price beats the hard bound.
        fixed_s: seconds of one call that has any work (in-graph launches, ramp-up, small kernels).
        exponent: p of the norm, >= 1; `.inf` for a sharp roofline.
        error: mean absolute relative error on shape groups held out of the fit; null where the constants are assumed.
        source: the measurements, or the reason for the assumption.
        fit: how they were fitted; null where they were not.
    """

    memory_efficiency: float
    compute_efficiency: float
    fixed_s: float
    exponent: float = math.inf
    error: float | None = None
    source: str
    fit: Fit | None = None

    def __post_init__(self) -> None:
        for name in ("memory_efficiency", "compute_efficiency"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1] (hard bound), got {getattr(self, name)}")
        self._not_negative("fixed_s")
        self._at_least_one("exponent")

    def _not_negative(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    @property
    def measured(self) -> bool:
        """Whether measurements stand behind it."""
        return self.error is not None

    def slowed(self, factor: float) -> Self:
        """The same kernels, `factor` times as long, but never beyond the peak rates."""
        changed: dict[str, Any] = {
            f.name: factor * getattr(self, f.name) for f in fields(self) if f.name.endswith("_s") or f.name in _PASSES
        }
        for name in ("memory_efficiency", "compute_efficiency"):
            changed[name] = min(1.0, getattr(self, name) / factor)
        if isinstance(self, DecodeEfficiency):
            changed["l2_efficiency"] = self.l2_efficiency / factor
        return replace(self, **changed)

    def seconds(self, work: Work, peaks: Peaks, calls: int = 1) -> Seconds:
        """Seconds of `calls` calls that do `work` together; 0 where there is no work."""
        compute_s, memory_s = self._parts(work, peaks)
        fixed_s = calls * self.fixed_s * (np.maximum(compute_s, memory_s) > 0)
        seconds: Seconds = fixed_s + pnorm(compute_s, memory_s, self.exponent)
        return seconds

    def _parts(self, work: Work, peaks: Peaks) -> tuple[Amount, Amount]:
        compute_s = work.flops / (self.compute_efficiency * peaks.flops_per_s)
        return compute_s, work.bytes / (self.memory_efficiency * peaks.bytes_per_s)


@dataclass(kw_only=True, slots=True)
class DenseEfficiency(Efficiency):
    """A GEMM: the roofline against the chain of one thread block, which no number of SMs shortens.

    Attributes:
        chain_s: seconds to walk k = 4,096 with few rows; grows with sqrt(k), since deeper ones are split.
        chain_rows_s: what 256 rows and more add to it.
        chain_exponent: p between roofline and chain.
        depth_offset: k worth of prologue and epilogue of every tile.
        input_passes: times the bf16 input goes through memory in a kernel of its own, where it is quantised first.
    """

    chain_s: float = 0.0
    chain_rows_s: float = 0.0
    chain_exponent: float = 1.0
    depth_offset: float = 0.0
    input_passes: float = 0.0

    def __post_init__(self) -> None:
        Efficiency.__post_init__(self)
        self._not_negative("chain_s", "chain_rows_s", "depth_offset", "input_passes")
        self._at_least_one("chain_exponent")

    def gemm_s(self, gemm: Gemm, peaks: Peaks) -> Seconds:
        """Seconds of one GEMM; 0 for no rows."""
        compute_s, memory_s = self._parts(gemm.work, peaks)
        rows: Amount = np.minimum(gemm.m, _FULL_ROWS) / _FULL_ROWS
        chain_s = (self.chain_s + self.chain_rows_s * rows) * np.sqrt(gemm.k / _USUAL_DEPTH)
        roofline_s = pnorm(compute_s * (1.0 + self.depth_offset / gemm.k), memory_s, self.exponent)
        gemm_s = self.fixed_s + pnorm(roofline_s, chain_s, self.chain_exponent)
        quantise_s = self.input_passes * ACTIVATION_BYTES * gemm.m * gemm.k / peaks.bytes_per_s
        seconds: Seconds = np.greater(gemm.m, 0) * (gemm_s + quantise_s)
        return seconds


@dataclass(kw_only=True, slots=True)
class ExpertEfficiency(Efficiency):
    """The routed experts of a layer: grouped GEMMs whose tiles are half empty, and kernels that move the rows.

    Attributes:
        row_block: rows of the largest tile; the last tile of every active expert is half empty on average.
        block_growth: rows of a tile per row of an expert, until the largest is reached.
        skew_compute: share of the compute that a power law of loads adds, its fullest experts being waited for.
        width_offset: columns that every shard of an expert costs beyond its own: tiles that narrow ones do not fill.
        row_s: seconds to permute and reduce one (token, expert) row at hidden width 4,096.
    """

    row_block: float
    block_growth: float = 1.0
    skew_compute: float = 0.0
    width_offset: float = 0.0
    row_s: float = 0.0

    def __post_init__(self) -> None:
        Efficiency.__post_init__(self)
        self._not_negative("skew_compute", "width_offset", "row_s")
        if not self.row_block >= _SMALLEST_BLOCK:
            raise ValueError(f"row_block must be >= {_SMALLEST_BLOCK}, got {self.row_block}")
        if not self.block_growth > 0:
            raise ValueError(f"block_growth must be > 0, got {self.block_growth}")

    def experts_s(self, grouped: GroupedGemm, peaks: Peaks) -> Seconds:
        """Seconds of the layer; 0 for no rows."""
        per_expert = grouped.rows / np.where(np.greater(grouped.experts, 0), grouped.experts, 1.0)
        block = np.clip(self.block_growth * per_expert, _SMALLEST_BLOCK, self.row_block)
        work, wider = grouped.work, 1.0 + self.width_offset / grouped.width
        padding = grouped.experts * block * grouped.elements
        flops = (work.flops + padding) * (1.0 + self.skew_compute * grouped.skew)
        rows_s: Amount = self.row_s * grouped.rows * (grouped.hidden / _USUAL_DEPTH)
        seconds: Seconds = self.seconds(Work(flops * wider, work.bytes * wider + grouped.absent_bytes), peaks) + rows_s
        return seconds


@dataclass(kw_only=True, slots=True)
class PrefillEfficiency(Efficiency):
    """Prefill attention: memory, plus the norm of compute and the chain of the last query tile over all its keys.

    Attributes:
        softmax_width: head width that the softmax of a query-key pair is worth.
        token_s: chain seconds per key at head width 128.
        pair_s: seconds per (sequence, KV head) pair.
    """

    softmax_width: float = 0.0
    token_s: float = 0.0
    pair_s: float = 0.0

    def __post_init__(self) -> None:
        Efficiency.__post_init__(self)
        self._not_negative("softmax_width", "token_s", "pair_s")

    def prefill_s(self, core: AttentionCore, peaks: Peaks) -> Seconds:
        """Seconds of all chunks of a step; 0 for none."""
        compute_s, memory_s = self._parts(core.work, peaks)
        chain_s = self.token_s * core.tokens * ((core.width + self.softmax_width) / _USUAL_WIDTH)
        busy_s = pnorm(compute_s * (1.0 + self.softmax_width / core.width), chain_s, self.exponent)
        seconds: Seconds = (core.blocks > 0) * (self.fixed_s + self.pair_s * core.blocks + memory_s + busy_s)
        return seconds


@dataclass(kw_only=True, slots=True)
class DecodeEfficiency(Efficiency):
    """Decode and verify attention: the norm of compute, memory, waves of blocks over the SMs and one block's chain.

    Attributes:
        wave_s, wave_width_s: seconds per wave of blocks, and what a head width of 128 adds.
        sequence_s: seconds per sequence.
        split_s: seconds to combine the parts of contexts above 128 tokens.
        token_s: chain seconds per cached token of a part, at head width 128.
        split_tokens: tokens of the smallest part of a sequence.
        tile_rows: query rows of a tile; KV is read once per tile.
        l2_efficiency: of HBM bandwidth, for caches that a benchmark keeps in the L2; serving never does.
    """

    wave_s: float
    wave_width_s: float = 0.0
    sequence_s: float = 0.0
    split_s: float = 0.0
    token_s: float = 0.0
    split_tokens: float = 1024.0
    tile_rows: int = 64
    l2_efficiency: float = 1.0

    def __post_init__(self) -> None:
        Efficiency.__post_init__(self)
        self._not_negative("wave_s", "wave_width_s", "sequence_s", "split_s", "token_s")
        self._at_least_one("tile_rows", "split_tokens")
        if not self.l2_efficiency > 0:
            raise ValueError(f"l2_efficiency must be > 0, got {self.l2_efficiency}")

    def decode_s(self, core: AttentionCore, peaks: Peaks, in_l2: Amount = False) -> Seconds:
        """Seconds of all sequences of a step; 0 for none. `in_l2`: where the whole cache lies in the L2."""
        compute_s, memory_s = self._parts(core.work, peaks)
        memory_s = memory_s * np.where(in_l2, self.memory_efficiency / self.l2_efficiency, 1.0)
        some: Amount = np.greater(core.blocks, 0)
        blocks: Amount = np.maximum(core.blocks, 1)
        width = core.width / _USUAL_WIDTH
        waves_s = (self.wave_s + self.wave_width_s * width) * np.maximum(blocks / peaks.sm_count, 1.0)
        parts = np.maximum(np.minimum(core.tokens / self.split_tokens, peaks.sm_count / blocks), 1.0)
        chain_s = self.token_s * width * core.tokens / parts
        combine_s = self.split_s * np.clip(core.tokens / _SPLIT_TOKENS - 1.0, 0.0, 1.0)
        busy_s = pnorm(pnorm(pnorm(memory_s, compute_s, self.exponent), waves_s, self.exponent), chain_s, self.exponent)
        seconds: Seconds = some * (self.fixed_s + self.sequence_s * core.sequences + combine_s + busy_s)
        return seconds
