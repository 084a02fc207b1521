"""Bands: errors of the op families, drawn once for all runs, and what they make of step times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.cost.errors import COMMON, NORMAL, deviation, family_errors
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.draws import key
from sim.metrics.summary import block_seconds, block_shape

LEVEL = 0.8
"""Probability that a band holds the figure."""

SHARED = 0.3
"""Share of a family's variance that steps of another width have too. Held-out errors of kernels (GEMM, experts, prefill
attention on H200 and A100) at a size and at four times it correlate by 0.1 to 0.4; those of four shapes at one size
cancel hardly at all (0.65 to 1.1 of the error of one), so a family's error counts as one bias."""

DRAWS = 2000

Column = NDArray[np.float64]
Blocks = Mapping[str, NDArray[np.int64]]
Shares = Mapping[str, float]
"""Op family -> its share of a time; they sum to 1."""


@dataclass(kw_only=True, slots=True)
class MeasuredStep:
    """A kind of step whose time is known from a run: errors that it shares with other steps are gone.

    Attributes:
        shares: of the op families in it.
        width: query tokens of each decoding sequence.
        error: mean relative error that its time still has.

    Raises:
        ValueError: shares that do not sum to 1, width < 1, error < 0.
    """

    shares: dict[str, float]
    width: int
    error: float

    def __post_init__(self) -> None:
        if abs(sum(self.shares.values()) - 1.0) > 0.01 or min(self.shares.values()) < 0:
            raise ValueError(f"measured_step.shares must be >= 0 and sum to 1, got {self.shares}")
        if self.width < 1:
            raise ValueError(f"measured_step.width must be >= 1, got {self.width}")
        if not self.error >= 0:
            raise ValueError(f"measured_step.error must be >= 0, got {self.error}")


def family_seconds(blocks: Blocks, cost_at: Callable[[int], StepCost]) -> dict[str, Column]:
    """Seconds of each block by op family, priced at its draft length; they sum to its duration."""
    columns = dict(blocks)
    seconds = block_seconds(columns)
    by_family: dict[str, Column] = {}
    for drafts in np.unique(columns["drafts"]).tolist():
        chosen = columns["drafts"] == drafts
        shape = block_shape({name: column[chosen] for name, column in columns.items()})
        families = cost_at(drafts).families(shape)
        scale = seconds[chosen] / sum(families.values())
        for name, priced in families.items():
            by_family.setdefault(name, np.zeros_like(seconds))[chosen] = priced * scale
    return by_family


def shares_of(families: Mapping[str, Column], weights: Column) -> dict[str, float]:
    """Share of each family in the blocks' time, blocks weighted; empty where nothing weighs."""
    sums = {name: float(column @ weights) for name, column in families.items()}
    total = sum(sums.values())
    return {name: value / total for name, value in sums.items()} if total > 0 else {}


def step_shares(cost: StepCost, shape: StepShape) -> dict[str, float]:
    """Share of each family in one step."""
    return shares_of({name: np.atleast_1d(value) for name, value in cost.families(shape).items()}, np.ones(1))


def step_error(shares: Shares, errors: Mapping[str, float]) -> float:
    """Standard deviation of the logarithm of a time with these shares."""
    own = sum((share * errors[name]) ** 2 for name, share in shares.items())
    kernels = sum(share for name, share in shares.items() if name != "host")
    return float(np.sqrt(own + (kernels * deviation(COMMON)) ** 2))


def step_factors(
    shares: Shares, errors: Mapping[str, float], width: int, measured: MeasuredStep | None = None
) -> Column:
    """Draws of true over predicted time, (DRAWS,), for a time with these shares.

    The draws are the same for every run, so what two runs share of an error cancels in their ratio.

    Args:
        shares: of the op families.
        errors: standard deviations of their logarithms (`family_errors`).
        width: query tokens of a sequence; the part of an error that is the shapes' own is drawn per width.
        measured: a step that a run has shown.
    """
    factors = _factors(shares, errors, width)
    if measured is None:
        return factors
    known, here = np.log(_factors(measured.shares, errors, measured.width)), np.log(factors)
    slope = np.cov(here, known)[0, 1] / known.var(ddof=1)
    left = NORMAL * measured.error * _normal("run")
    result: Column = np.exp(here - slope * (known - left))
    return result


def speedup_factors(
    rounds: StepCost, context_tokens: int, batch: float, measured: MeasuredStep | None = None
) -> Column:
    """Draws of true over predicted speedup of a batch's rounds over plain steps, (DRAWS,); acceptance as given.

    Args:
        rounds: prices with SD.
        context_tokens: cached of each sequence.
        batch: sequences.
        measured: a step that a run has shown.
    """
    errors = family_errors(rounds.target)
    draws = []
    for cost in (replace(rounds, width=1, draft=None, drafting=None), rounds):
        shape = StepShape(sequences=batch, width=cost.width, context_tokens=batch * context_tokens)
        draws.append(step_factors(step_shares(cost, shape), errors, cost.width, measured))
    ratio: Column = draws[0] / draws[1]
    return ratio


def interval(draws: Column, level: float = LEVEL) -> tuple[float, float]:
    """The ends between which `level` of the draws lie."""
    low, high = np.quantile(draws, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _factors(shares: Shares, errors: Mapping[str, float], width: int) -> Column:
    total: Column = np.zeros(DRAWS)
    for name, share in shares.items():
        deviate = SHARED**0.5 * _normal(name) + (1.0 - SHARED) ** 0.5 * _normal(f"{name} {width}")
        card = 0.0 if name == "host" else deviation(COMMON) * _normal("card")
        total += share * np.exp(errors[name] * deviate + card)
    return total


def _normal(stream: str) -> Column:
    """Standard normal draws that belong to a name."""
    return np.random.default_rng(int(key(0, f"band {stream}"))).standard_normal(DRAWS)
