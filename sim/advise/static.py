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
from sim.serving.paths import Paths
from sim.serving.rounds import RoundRule
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
        emitted: tokens of a sequence's round with 0, 1, 2, ... drafts, mean over the rounds of a request stream.
        prompt_tokens, output_tokens: mean of the stream's requests.
    """

    experiment: Experiment
    plain: StepCost
    drafting: StepCost
    emitted: tuple[float, ...]
    prompt_tokens: float
    output_tokens: float

    @classmethod
    def of(cls, experiment: Experiment, requests: Requests) -> StaticBatches:
        """Prices of an experiment with speculation, and what its acceptance brings on these requests.

        Raises:
            ValueError: its drafter does not fit the target, or its acceptance has no answer for the requests.
        """
        plain, drafting = step_cost(replace(experiment, speculation=None)), step_cost(experiment)
        lengths = (float(column.mean()) for column in (requests.prompt_tokens, requests.output_tokens))
        return cls(experiment, plain, drafting, tokens_per_round(experiment, requests), *lengths)

    def plain_s(self, batches: Counts, context_tokens: Counts) -> Column:
        """Seconds of a step with speculation off."""
        shape = StepShape(sequences=batches, width=1, context_tokens=batches * context_tokens)
        return np.asarray(self.plain.seconds(shape), dtype=np.float64)

    def round_s(self, drafts: int, batches: Counts, context_tokens: Counts) -> Column:
        """Seconds of a round of `drafts`; 0 is what a policy pays that keeps the drafter and drafts nothing."""
        cost = self.at(drafts)
        matched = _match_rate(self.experiment) if drafts else 1.0
        width = 1 + matched * (cost.width - 1)
        shape = StepShape(sequences=batches, width=width, context_tokens=batches * context_tokens)
        return np.asarray(cost.seconds(shape, matched == 1.0), dtype=np.float64)

    def at(self, drafts: int) -> StepCost:
        """Prices of rounds of `drafts`."""
        return cost_at(self.experiment, self.drafting, drafts)

    def speedup(self, drafts: int, batches: Counts, context_tokens: Counts) -> Column:
        """Tokens per second with `drafts` over those with speculation off."""
        return self.emitted[drafts] / self.break_even(drafts, batches, context_tokens)

    def break_even(self, drafts: int, batches: Counts, context_tokens: Counts) -> Column:
        """Acceptance length at which a round pays for itself: its seconds over those of a step without SD."""
        even: Column = self.round_s(drafts, batches, context_tokens) / self.plain_s(batches, context_tokens)
        return even

    def rates(self, batches: Counts, context_tokens: Counts) -> Column:
        """Tokens per second that a request sees among `batches` that decode; row g with g drafts, 0 to the most.

        From its own prompt, which is computed in a step of the others, to its last round. While it decodes, every other
        one is replaced once, so as many of its rounds as there are others have a prompt beside them; all such steps
        pay the drafter's passes too.
        """
        scheduler = self.experiment.scheduler
        rows = []
        for drafts in range(self.experiment.drafts + 1):
            round_s = self.round_s(drafts, batches, context_tokens)
            rounds = self.output_tokens / self.emitted[drafts]
            decoding = batches * scheduler.mixes
            pieces = np.maximum(1.0, self._steps_of_a_prompt(drafts, decoding))
            beside = np.minimum(batches * pieces, rounds) if scheduler.mixes else batches * pieces
            alone = rounds - beside if scheduler.mixes else rounds
            mixed_s = self._mixed_s(drafts, decoding, context_tokens, pieces)
            rows.append(self.output_tokens / (alone * round_s + (beside + pieces) * mixed_s))
        return np.stack(rows)

    def saturated_rates(self, batches: Counts, context_tokens: Counts) -> Column:
        """Tokens per second of a server that is always full, per sequence; rows as in `rates`.

        A request that leaves is followed by another, whose prompt is computed beside the rounds of the rest. A batch
        passes on one request in output / (batch x emitted) rounds; prompts share a step where these are less than one.
        Where the step's token budget takes more steps for a prompt than there are rounds, prompts set the pace, and
        longer drafts only make their steps longer.
        """
        scheduler = self.experiment.scheduler
        rows = []
        for drafts in range(self.experiment.drafts + 1):
            round_s = self.round_s(drafts, batches, context_tokens)
            rounds = self.output_tokens / (batches * self.emitted[drafts])
            decoding = batches * scheduler.mixes
            least = self._steps_of_a_prompt(drafts, decoding)
            beside = np.minimum(np.maximum(1.0, least), np.maximum(rounds, least))
            beside_s = beside * self._mixed_s(drafts, decoding, context_tokens, beside)
            alone = np.maximum(rounds - beside, 0.0) if scheduler.mixes else rounds
            rows.append(self.output_tokens / (batches * (alone * round_s + beside_s)))
        return np.stack(rows)

    def _steps_of_a_prompt(self, drafts: int, decoding: Counts) -> Column:
        """Steps that a prompt takes at least, where the sequences that decode leave the rest of the token budget."""
        budget = self.experiment.scheduler.max_batched_tokens
        steps: Column = self.prompt_tokens / np.maximum(budget - decoding * self.at(drafts).width, 1)
        return steps

    def _mixed_s(self, drafts: int, decoding: Counts, context_tokens: Counts, steps: Column) -> Column:
        """Seconds of a step with drafts in which 1 / `steps` of a prompt is computed."""
        cost, new = self.at(drafts), self.prompt_tokens / steps
        chunks = np.maximum(1.0, 1.0 / steps)
        shape = StepShape(
            sequences=decoding,
            width=1 + (_match_rate(self.experiment) if drafts else 1.0) * (cost.width - 1),
            context_tokens=decoding * context_tokens,
            chunks=chunks,
            prefill_tokens=new,
            prefill_history_tokens=np.maximum(self.prompt_tokens - new, 0.0) / 2.0,
            prefill_pairs=new * self.prompt_tokens / 2.0,
            completed=1.0 / steps,
        )
        return np.asarray(cost.seconds(shape), dtype=np.float64)


def tokens_per_round(experiment: Experiment, requests: Requests) -> tuple[float, ...]:
    """Tokens that a round emits with 0, 1, ... most drafts: mean over all rounds of these requests.

    Drawn like the simulation's rounds, so it counts what a request wastes on its last drafts, rounds in which the
    drafter finds nothing, and that hard passages take more rounds than easy ones.
    """
    speculation = speculation_of(experiment)
    speculation.acceptance.check(requests)
    drafter = speculation.drafter
    rule = RoundRule(acceptance=speculation.acceptance, width=drafter.verify_tokens, offers=drafter.offers())
    paths = Paths(requests, rule, experiment.cluster.block_tokens, experiment.seed)
    decoding = np.flatnonzero(requests.output_tokens > 1).tolist()
    emitted = int((requests.output_tokens - 1).sum())
    found = [1.0]
    for drafts in range(1, experiment.drafts + 1):
        rounds = sum(paths.first(request, drafts).rounds for request in decoding)
        found.append(emitted / rounds if rounds else 1.0)
    return tuple(found)


def speculation_of(experiment: Experiment) -> Speculation:
    """The speculation of an experiment that has one."""
    assert experiment.speculation is not None
    return experiment.speculation


def with_drafts(experiment: Experiment, drafts: int) -> Experiment:
    """`experiment` with a fixed draft length."""
    return replace(experiment, speculation=replace(speculation_of(experiment), length=Fixed(drafts=drafts)))


def mean_context_tokens(requests: Requests) -> int:
    """Cached tokens of a sequence at its mean decode step."""
    output = requests.output_tokens.astype(np.float64)
    return max(1, int(np.average(requests.prompt_tokens + output / 2, weights=output)))


def _match_rate(experiment: Experiment) -> float:
    drafter = speculation_of(experiment).drafter
    return drafter.match_rate if isinstance(drafter, NGram) else 1.0
