"""What speculation did in a run: acceptance, and the three terms of eq. 4 as they were in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from sim import theory
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.metrics.record import Recorder


def acceptance(recorder: Recorder) -> dict[str, float]:
    """Rounds and what they accepted, over all requests; empty where none was run.

    `alpha` is the constant rate with the run's sigma at its mean draft length (eq. 5); `engine_acceptance_rate` is
    accepted over drafted, as engines print it.
    """
    rounds, accepted, drafted = (sum(getattr(recorder, name)) for name in ("rounds", "accepted", "drafted"))
    if not rounds:
        return {}
    sigma = (accepted + rounds) / (drafted + rounds)
    return {
        "rounds": float(rounds),
        "drafts": drafted / rounds,
        "acceptance_length": accepted / rounds + 1.0,
        "sigma": sigma,
        "alpha": theory.alpha_of(sigma, drafted / rounds),
        "engine_acceptance_rate": accepted / drafted if drafted else 0.0,
    }


def equation4(
    parts: Iterable[Mapping[str, NDArray[np.int64]]], cost_at: Callable[[int], StepCost], tokens_per_round: float
) -> dict[str, float]:
    """The terms of eq. 4 over the run's rounds beside which nothing was prefilled, by their time.

    Args:
        parts: the run's blocks, some at a time.
        cost_at: price of a step at a draft length.
        tokens_per_round: S / R.

    Returns:
        `draft` = gamma T_D / T_T(B, 1), all passes and the drafter's host time; `verify` = T_T(B, width) / T_T(B, 1),
        whose inverse is the target efficiency; `reject` = T_reject / T_T(B, 1); `tokens_per_round` = S / R; `speedup`,
        the latter over the sum of the terms, to which eq. 4 knows no host time, prompts or queue. Empty where there was
        no such round.
    """
    sums = sum((_round_seconds(blocks, cost_at) for blocks in parts), np.zeros(4))
    if not sums[0]:
        return {}
    terms = dict(zip(("draft", "verify", "reject"), (sums[1:] / sums[0]).tolist(), strict=True))
    return terms | {"tokens_per_round": tokens_per_round, "speedup": tokens_per_round / sum(terms.values())}


def _round_seconds(blocks: Mapping[str, NDArray[np.int64]], cost_at: Callable[[int], StepCost]) -> NDArray[np.float64]:
    """Seconds of steps of one token, and of the rounds' drafts, verifications and rejections, over pure rounds."""
    pure = (blocks["chunks"] == 0) & (blocks["sequences"] > 0) & (blocks["drafts"] > 0)
    sums = np.zeros(4)
    for drafts in np.unique(blocks["drafts"][pure]).tolist():
        of = {name: column[pure & (blocks["drafts"] == drafts)] for name, column in blocks.items()}
        steps, cost = of["steps"], cost_at(drafts)
        width = of["verify_tokens"] / (steps * of["sequences"])
        shape = StepShape(sequences=of["sequences"], width=width, context_tokens=of["context_tokens"] // steps)
        families = cost.families(shape)
        decode_s, verify_s = (cost.target_step_s(shape, each) for each in (1, width))
        seconds = (decode_s, families["draft"], verify_s, families["rejection"])
        sums += [float(np.sum(steps * each)) for each in seconds]
    return sums
