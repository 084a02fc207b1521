"""Step times in whole ticks for the serving loop: `StepCost`, tabulated.

What sees tokens is tabulated over token counts, what sees contexts becomes lines over cells of context. Both come from
`StepCost` and its forward passes alone; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from sim.cost.drafting import Drafting
from sim.cost.forward_times import ForwardTimes
from sim.cost.lines import Lines, cell_bounds, ticks_table
from sim.cost.ragged_times import RaggedTimes
from sim.cost.shape import Moments, StepShape
from sim.cost.step import StepCost


class StepTimes:
    """What a rank asks: steps of pure decoding as lines, steps with prefill one by one, for any draft length.

    Args:
        cost_at: the deployment's step cost at a draft length.
        most_drafts: the longest draft length.
        most_tokens: most query tokens of a step (`scheduler.max_batched_tokens`).
        most_context_tokens: most cached tokens of a batch (the KV pool).
    """

    def __init__(
        self, cost_at: Callable[[int], StepCost], most_drafts: int, most_tokens: int, most_context_tokens: int
    ) -> None:
        self._cost_at = cost_at
        self._room = (most_tokens, most_context_tokens)
        self._uniform = cache(self._at_length)
        self._ragged = cache(lambda: RaggedTimes(cost_at(most_drafts), most_context_tokens))
        self.decode = cache(self._tabulate_decode)

    def mixed(self, drafts: int, sequences: int, context_tokens: int, moments: Moments) -> int:
        """One step with prefill, in ticks."""
        times: UniformTimes = self._uniform(drafts)
        return times.mixed(sequences, context_tokens, moments)

    def ragged(self, sequences: int, at_least: tuple[int, ...], context_tokens: int) -> int:
        """One step without prefill in which `at_least[j - 1]` sequences verify j drafts or more, in ticks.

        Priced as the longest length's target step at the mean width; each draft pass over those that draft so far.
        """
        return self._ragged().step(sequences, at_least, context_tokens)

    def ragged_mixed(self, at_least: tuple[int, ...], sequences: int, context_tokens: int, moments: Moments) -> int:
        """`mixed` with sequences of different widths: the price at the next whole width below and above, weighted."""
        below, extra = divmod(sum(at_least), sequences) if sequences else (0, 0)
        low = self.mixed(below, sequences, context_tokens, moments)
        if not extra:
            return low
        return low + (self.mixed(below + 1, sequences, context_tokens, moments) - low) * extra // sequences

    def _at_length(self, drafts: int) -> UniformTimes:
        return UniformTimes(self._cost_at(drafts), *self._room)

    def _tabulate_decode(self, sequences: int, drafts: int) -> Lines:
        return self._uniform(drafts).decode(sequences)


class UniformTimes:
    """Steps in which every decoding sequence verifies the same number of drafts; arguments as for StepTimes."""

    def __init__(self, cost: StepCost, most_tokens: int, most_context_tokens: int) -> None:
        self._cost, self._width = cost, cost.width
        self._bounds = cell_bounds(most_context_tokens)
        room = (cost.engine, cost.width, most_tokens, most_context_tokens)
        self._target = ForwardTimes(cost.target, *room)
        tokens = np.arange(most_tokens + 1)
        step_s = cost.engine.step_host_s + (cost.engine.round_host_s if cost.drafting is not None else 0.0)
        host_s = step_s + cost.engine.sequence_host_s * tokens.astype(np.float64)
        self._host = ticks_table(host_s)
        self._draft_tokens = ticks_table(cost.engine.draft_token_host_s * (cost.width - 1) * tokens.astype(np.float64))
        self._sampling = ticks_table(cost.sampling_s(StepShape(logits=tokens)))
        self._drafting = None
        if cost.drafting is not None:
            self._drafting = DraftTimes(cost, cost.drafting, *room[1:])

    def decode(self, sequences: int) -> Lines:
        """Steps without prefill, over total context."""
        return Lines.through(
            self._bounds,
            lambda context: self._cost.seconds(
                StepShape(sequences=sequences, width=self._cost.width, context_tokens=context)
            ),
        )

    def mixed(self, sequences: int, context_tokens: int, moments: Moments) -> int:
        """One step with prefill, in ticks."""
        chunks, _, _, _, completed = moments
        rows = sequences * self._width + completed
        total = self._target.mixed(sequences, context_tokens, moments, rows) + self._sampling[rows]
        total += self._host[sequences + chunks] + self._draft_tokens[sequences]
        return total if self._drafting is None else total + self._drafting.mixed(sequences, context_tokens, moments)


class DraftTimes:
    """What drafting adds to steps with prefill."""

    def __init__(
        self, cost: StepCost, drafting: Drafting, width: int, most_tokens: int, most_context_tokens: int
    ) -> None:
        self._cost = cost
        self._drafting = drafting
        self._width = width
        self._bounds = cell_bounds(most_context_tokens)
        proposing = np.arange(most_tokens + 1).astype(np.float64)
        passes = drafting.passes + drafting.catch_up
        host_s = passes * cost.engine.draft_pass_host_s + drafting.host_s + drafting.sequence_host_s * proposing
        self._host = ticks_table(host_s)
        self._first = None
        if drafting.catch_up:
            assert cost.draft is not None
            wide = width + drafting.first_extra
            room = most_tokens * wide // width
            self._first = ForwardTimes(cost.draft, cost.draft_engine, wide, room, most_context_tokens)
            self._fusion = ticks_table(cost.fusion_s(np.arange(room + 1)))
        self._later = cache(self._tabulate_later)

    def mixed(self, sequences: int, context_tokens: int, moments: Moments) -> int:
        """Ticks in one step with prefill."""
        chunks, new_tokens, history_tokens, pairs, completed = moments
        proposing, drafting = sequences + completed, self._drafting
        total = self._host[proposing]
        if self._first is not None:
            rows, new = proposing * drafting.first_rows, new_tokens + completed * drafting.first_extra
            longer = (chunks, new, history_tokens, pairs, completed)
            total += self._first.mixed(sequences, context_tokens, longer, rows)
            total += self._fusion[sequences * (self._width + drafting.first_extra) + new]
        if drafting.passes and proposing:
            cached = context_tokens + sequences * self._width + new_tokens + history_tokens
            total += drafting.passes * self._later(proposing).at(cached)
        return total

    def _tabulate_later(self, sequences: int) -> Lines:
        """One pass over the proposing sequences."""
        return Lines.through(
            self._bounds, lambda context: self._cost.draft_pass_s(self._drafting.pass_over(sequences, context))
        )
