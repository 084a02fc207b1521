"""Decode and verify attention over MLA's latent cache: constants and price."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sim.cost.efficiency import Efficiency
from sim.cost.shape import Seconds
from sim.cost.work import Amount, Peaks, Work, pnorm

_SPLIT_TOKENS = 128
"""Cached tokens of one sequence above which kernels split it and combine the parts."""


@dataclass(frozen=True, slots=True)
class LatentCore:
    """Absorbed attention over a latent cache that all query heads of a sequence share, the matrices apart.

    Attributes:
        work: FLOPs of whole tiles of query rows, and bytes with the cache read once.
        blocks: (sequence, tile of query rows) blocks.
        rows: query rows (token and head) of all sequences.
        tokens: cached tokens of a sequence (mean).
    """

    work: Work
    blocks: Amount
    rows: Amount
    tokens: Amount

    def part(self, share: Amount) -> LatentCore:
        """A share of the sequences."""
        return LatentCore(self.work * share, self.blocks * share, self.rows * share, self.tokens)


@dataclass(kw_only=True, slots=True)
class LatentEfficiency(Efficiency):
    """The norm of waves of blocks with what the GPU is busy with, then the combination of parts.

    Busy is the norm of compute, memory and one block's chain over its cached tokens.

    The cache is read from memory once, however many tiles of query rows there are: they run side by side and share the
    L2. The tensor cores multiply whole tiles, the last one padded.

    Attributes:
        wave_s, wave_rows_s: seconds per wave of blocks, and what a full tile of query rows adds.
        wave_exponent: p between the waves and what the GPU is busy with; 1 where they add up.
        split_s, split_row_s: seconds to combine the parts of split sequences, and what every query row adds. Contexts
            above 128 tokens are split where there are fewer blocks than SMs.
        token_s: chain seconds per cached token of a part.
        split_tokens: tokens of the smallest part of a sequence.
        tile_rows: query rows of a tile.
        l2_efficiency: of HBM bandwidth, for caches that a benchmark keeps in the L2; serving never does.
    """

    wave_s: float
    wave_rows_s: float = 0.0
    wave_exponent: float = 1.0
    split_s: float = 0.0
    split_row_s: float = 0.0
    token_s: float = 0.0
    split_tokens: float = 1024.0
    tile_rows: int = 64
    l2_efficiency: float = 1.0

    def __post_init__(self) -> None:
        Efficiency.__post_init__(self)
        self._not_negative("wave_s", "wave_rows_s", "split_s", "split_row_s", "token_s")
        self._at_least_one("wave_exponent", "tile_rows", "split_tokens")
        if not self.l2_efficiency > 0:
            raise ValueError(f"l2_efficiency must be > 0, got {self.l2_efficiency}")

    def slowed(self, factor: float) -> Self:
        """As for every family, the L2 slowed with the rest."""
        return replace(Efficiency.slowed(self, factor), l2_efficiency=self.l2_efficiency / factor)

    def latent_s(self, core: LatentCore, peaks: Peaks, in_l2: Amount = False) -> Seconds:
        """Seconds of all sequences of a step; 0 for none. `in_l2`: where the whole cache lies in the L2.

        Never less than as many of them take as fill half the SMs, the most that are split: more work costs no less.
        """
        share: Amount = np.minimum(1.0, 0.5 * peaks.sm_count / np.maximum(core.blocks, 1))
        seconds: Seconds = np.maximum(self._core_s(core, peaks, in_l2), self._core_s(core.part(share), peaks, in_l2))
        return seconds

    def _core_s(self, core: LatentCore, peaks: Peaks, in_l2: Amount) -> Seconds:
        compute_s, memory_s = self._parts(core.work, peaks)
        memory_s = memory_s * np.where(in_l2, self.memory_efficiency / self.l2_efficiency, 1.0)
        some: Amount = np.greater(core.blocks, 0)
        blocks: Amount = np.maximum(core.blocks, 1)
        filled = core.rows / (blocks * self.tile_rows)
        waves_s = (self.wave_s + self.wave_rows_s * filled) * np.maximum(blocks / peaks.sm_count, 1.0)
        idle = peaks.sm_count / blocks
        parts = np.maximum(np.minimum(core.tokens / self.split_tokens, idle), 1.0)
        chain_s = self.token_s * core.tokens / parts
        split = np.clip(core.tokens / _SPLIT_TOKENS - 1.0, 0.0, 1.0) * np.clip(idle - 1.0, 0.0, 1.0)
        combine_s = split * (self.split_s + self.split_row_s * core.rows)
        busy_s = pnorm(pnorm(memory_s, compute_s, self.exponent), chain_s, self.exponent)
        seconds: Seconds = some * (self.fixed_s + combine_s + pnorm(busy_s, waves_s, self.wave_exponent))
        return seconds
