"""Step times of attention ranks in lockstep from a layer profile: `ProfilePrices` for DP attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.lines import Lines, ticks_table
from sim.cost.lockstep import Contexts, Pass, RankLoad, RankTime
from sim.cost.profile_attention import Floats
from sim.cost.profile_prices import ProfilePrices

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class MoeBlocks:
    """Measured MoE blocks of one layer: linear over tokens, and at each count of tokens over distinct experts.

    Attributes:
        tokens: ascending.
        blocks: for each of them distinct experts, ascending, and seconds.
    """

    tokens: Floats
    blocks: tuple[tuple[Floats, Floats], ...]

    @classmethod
    def from_rows(cls, rows: pd.DataFrame) -> MoeBlocks:
        """From the rows `moe_block` of a kernel trace."""
        known = rows[rows["op"] == "moe_block"].sort_values(["tokens", "distinct_experts"])
        parts = [(float(str(tokens)), part) for tokens, part in known.groupby("tokens")]
        return cls(
            np.array([tokens for tokens, _ in parts]),
            tuple(
                (part["distinct_experts"].to_numpy(np.float64), part["latency_s"].to_numpy(np.float64))
                for _, part in parts
            ),
        )

    def __call__(self, tokens: Floats, distinct: Floats) -> Floats:
        """Seconds of the block, one for each entry."""
        at_knots = np.array([np.interp(distinct, *block) for block in self.blocks])
        low = np.clip(np.searchsorted(self.tokens, tokens, side="right") - 1, 0, len(self.tokens) - 2)
        weight = (tokens - self.tokens[low]) / (self.tokens[low + 1] - self.tokens[low])
        column = np.arange(len(tokens))
        seconds: Floats = at_knots[low, column] * (1 - weight) + at_knots[low + 1, column] * weight
        return seconds


class ProfileLockstep:
    """What a group of ranks asks: step times in ticks, without speculative decoding.

    Graphs and padding as in `LockstepForward`.

    Args:
        rank: the prices of one rank alone, from a profile without its MoE blocks.
        shared_s: seconds of all MoE blocks and of the exchange of tokens, over the tokens of all ranks.
        ranks: attention ranks.
    """

    def __init__(self, rank: ProfilePrices, shared_s: Callable[[Floats], Floats], ranks: int) -> None:
        self._rank = rank
        largest = int(np.asarray(rank.engine.padded_tokens(len(rank.token_ticks) - 1)))
        most = ranks * max(largest, len(rank.token_ticks) - 1)
        self._shared = ticks_table(shared_s(np.arange(1.0, most + 1.0)))
        self.attention = cache(self._tabulate_attention)

    def step(self, loads: Sequence[RankLoad], context: Sequence[int]) -> int:
        """Ticks of one step, with so many cached tokens on each rank."""
        return max(time.at(context[rank]) for rank, time in self._times(loads, context))

    def steps(self, loads: Sequence[RankLoad], context: Sequence[Contexts]) -> Contexts:
        """Ticks of several steps that differ in cached tokens alone."""
        first = [int(column[0]) for column in context]
        longest: Contexts = np.max([time.over(context[rank]) for rank, time in self._times(loads, first)], axis=0)
        return longest

    def _times(self, loads: Sequence[RankLoad], context: Sequence[int]) -> list[tuple[int, RankTime]]:
        one = self._rank
        tokens = [max(1, load.sequences + load.moments[1]) for load in loads]
        most, mixed = max(tokens), any(load.moments[0] for load in loads)
        padded = int(np.asarray(one.engine.padded_tokens(most)))
        graphed = padded <= one.engine.graph_tokens
        computed = [padded] * len(loads) if graphed and (one.engine.pads_prompts or not mixed) else tokens
        shared = self._shared[sum(computed) - 1]
        launch = one.launch_ticks(most, uniform=not mixed)
        times = []
        for rank, load in enumerate(loads):
            if load.busy:
                rows = load.sequences + load.moments[4]
                fixed = (
                    round(one.token_ticks[min(computed[rank], len(one.token_ticks) - 1)] + one.row_ticks[rows]) + shared
                )
                lines = None
                if load.moments[0]:
                    fixed += round(one.prompt_ticks(load.sequences, context[rank], load.moments))
                else:
                    lines = self.attention(load.sequences)
                host = one.host_ticks[load.sequences + load.moments[0]]
                times.append((rank, RankTime(host, [Pass(1, fixed, launch, lines)])))
        return times

    def _tabulate_attention(self, sequences: int) -> Lines:
        return Lines.through(
            self._rank.bounds, lambda context: self._rank.decode_attention_s(sequences, context.astype(np.float64))
        )
