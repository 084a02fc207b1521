"""Why a round of drafts takes longer than a plain step over the same sequences: its extra seconds, by cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.cost.shape import Count, Seconds, StepShape
from sim.cost.step import StepCost

CAUSES = (
    "draft",
    "verify: expert loads",
    "verify: compute",
    "verify: attention",
    "rejection",
    "host and graphs",
)
"""In the order in which they are added."""


def plain_cost(cost: StepCost) -> StepCost:
    """`cost` with speculation off."""
    return replace(cost, width=1, draft=None, drafting=None)


def extra_seconds(cost: StepCost, sequences: Count, context_tokens: Count, width: Count) -> dict[str, Seconds]:
    """Extra seconds of a round by cause, in the order of `CAUSES`; with the plain step they sum to the round.

    Draft: all passes and the drafter's host time. Expert loads: the experts that the drafts hit beyond those of a plain
    step, loaded for the tokens of that step. Compute: every family that sees tokens, over the drafts too. Attention:
    over the drafts. Rejection: instead of sampling. Host and graphs: what padding to graph sizes, launches and the
    engine's host take more than in the plain step.

    Args:
        cost: the price of rounds.
        sequences: decoding sequences, >= 1.
        context_tokens: cached tokens of all of them.
        width: query tokens of each, the mean where they differ.
    """
    plain = plain_cost(cost)
    one = StepShape(sequences=sequences, context_tokens=context_tokens)
    wide = replace(one, width=width)
    before, after = plain.families(one), cost.families(wide, bool(np.all(np.equal(width, cost.width))))
    bare_before, bare_after = cost.target.tokenwise(one), cost.target.tokenwise(wide)
    loads = bare_before["experts"] * (cost.target.experts_over_loads(one, width) - 1.0)
    padding = sum((after[name] - bare_after[name]) - (before[name] - bare_before[name]) for name in bare_before)
    return {
        "draft": after["draft"],
        "verify: expert loads": loads,
        "verify: compute": sum(bare_after.values()) - sum(bare_before.values()) - loads,
        "verify: attention": after["attention_decode"] - before["attention_decode"],
        "rejection": after["rejection"] - before["rejection"],
        "host and graphs": padding + after["host"] - before["host"],
    }
