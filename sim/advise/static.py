"""Rounds of static batches, priced by `StepCost`: what draft lengths bring before any queue is simulated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.config import Experiment
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.request import Requests
from sim.run import cost_at, step_cost
from sim.speculation.length import Fixed
from sim.speculation.ngram import NGram
from sim.speculation.speculation import Speculation

Column = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class StaticBatches:
    """Prices rounds of `batches` sequences that all have `context_tokens` cached; arrays broadcast.

    Attributes:
        experiment: with speculation, at the longest draft length considered.
        plain: price of its steps with speculation off.
        drafting: the same with it.
    """

    experiment: Experiment
    plain: StepCost
    drafting: StepCost

    @classmethod
    def of(cls, experiment: Experiment) -> StaticBatches:
        """Both prices of an experiment with speculation.

        Raises:
            ValueError: its drafter does not fit the target.
        """
        return cls(experiment, step_cost(replace(experiment, speculation=None)), step_cost(experiment))

    @property
    def speculation(self) -> Speculation:
        """Of the experiment."""
        assert self.experiment.speculation is not None
        return self.experiment.speculation

    def plain_s(self, batches: Counts, context_tokens: Counts) -> Column:
        """Seconds of a step with speculation off."""
        shape = StepShape(sequences=batches, width=1, context_tokens=batches * context_tokens)
        return np.asarray(self.plain.seconds(shape), dtype=np.float64)

    def round_s(self, drafts: int, batches: Counts, context_tokens: Counts) -> Column:
        """Seconds of a round of `drafts`; 0 is what a policy pays that keeps the drafter and drafts nothing."""
        cost = self.at(drafts)
        matched = self._matched if drafts else 1.0
        shape = StepShape(
            sequences=batches, width=1 + matched * (cost.width - 1), context_tokens=batches * context_tokens
        )
        return np.asarray(cost.seconds(shape, matched == 1.0), dtype=np.float64)

    def at(self, drafts: int) -> StepCost:
        """Prices of rounds of `drafts`."""
        return cost_at(self.experiment, self.drafting, drafts)

    def emitted(self, drafts: int) -> float:
        """Expected tokens of a sequence's round."""
        return 1.0 + (self._matched * self.speculation.acceptance.mean_accepted(drafts) if drafts else 0.0)

    def speedup(self, drafts: int, batches: Counts, context_tokens: Counts) -> Column:
        """Tokens per second with `drafts` over those with speculation off."""
        return self.emitted(drafts) * self.break_even(drafts, batches, context_tokens) ** -1.0

    def break_even(self, drafts: int, batches: Counts, context_tokens: Counts) -> Column:
        """Acceptance length at which a round pays for itself: its seconds over those of a step without SD."""
        even: Column = self.round_s(drafts, batches, context_tokens) / self.plain_s(batches, context_tokens)
        return even

    def rates(self, batches: Counts, context_tokens: Counts) -> Column:
        """Expected tokens per second of a sequence, shape (most drafts + 1, *batches), row g with g drafts."""
        most = self.experiment.drafts
        return np.stack([self.emitted(g) / self.round_s(g, batches, context_tokens) for g in range(most + 1)])

    @property
    def _matched(self) -> float:
        drafter = self.speculation.drafter
        return drafter.match_rate if isinstance(drafter, NGram) else 1.0


def with_drafts(experiment: Experiment, drafts: int) -> Experiment:
    """`experiment` with a fixed draft length."""
    assert experiment.speculation is not None
    return replace(experiment, speculation=replace(experiment.speculation, length=Fixed(drafts=drafts)))


def mean_context_tokens(requests: Requests) -> int:
    """Cached tokens of a sequence at its mean decode step."""
    output = requests.output_tokens.astype(np.float64)
    return max(1, int(np.average(requests.prompt_tokens + output / 2, weights=output)))
