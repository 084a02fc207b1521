"""Steps whose sequences verify different numbers of drafts, in whole ticks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from sim.cost.lines import Lines, cell_bounds, ticks_table
from sim.cost.shape import StepShape
from sim.cost.step import StepCost


class RaggedTimes:
    """Prices a step by its query tokens and each draft pass by who still drafts.

    The target sees the mean width, in a piecewise graph unless all verify the longest draft; a draft pass over a part
    of the sequences sees their share of the context.

    Args:
        cost: the step cost at the longest draft length.
        most_context_tokens: most cached tokens of a batch.
    """

    def __init__(self, cost: StepCost, most_context_tokens: int) -> None:
        self._cost = cost
        self._bounds = cell_bounds(most_context_tokens)
        self._pass_host = ticks_table(cost.engine.draft_pass_host_s)[0]
        drafting = cost.drafting
        self._passes = drafting.passes if drafting is not None else 0
        self._without_later = replace(cost, drafting=None if drafting is None else replace(drafting, passes=0))
        self._round = cache(self._tabulate_round)
        self._later = cache(self._tabulate_later)

    def step(self, sequences: int, at_least: tuple[int, ...], context_tokens: int) -> int:
        """Ticks of one step in which `at_least[j - 1]` of the sequences verify j drafts or more."""
        total = self._round(sequences, sequences + sum(at_least)).at(context_tokens)
        if not self._passes:
            return total
        for drafting in at_least[-self._passes :]:
            if drafting:
                total += self._later(drafting).at(context_tokens * drafting // sequences) + self._pass_host
        return total

    def _tabulate_round(self, sequences: int, tokens: int) -> Lines:
        cost = self._without_later
        uniform = tokens == sequences * cost.width
        return Lines.through(
            self._bounds,
            lambda context: cost.seconds(
                StepShape(sequences=sequences, width=tokens / sequences, context_tokens=context), uniform
            ),
        )

    def _tabulate_later(self, sequences: int) -> Lines:
        drafting = self._cost.drafting
        assert drafting is not None
        return Lines.through(
            self._bounds, lambda context: self._cost.draft_pass_s(drafting.pass_over(sequences, context))
        )
