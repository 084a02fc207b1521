"""How far the speedup of a round may be off: errors of the op families and of the acceptance, carried through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.advise.static import Column, StaticBatches
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.draws import key
from sim.hardware import resolve

LEVEL = 0.9
ASSUMED = 0.2
"""Relative error of what was not measured: host times, small kernels, all-reduce of an unmeasured link."""

_FAMILIES = {
    "gemm": "dense", "lm_head": "dense", "draft": "dense", "experts": "experts", "collective": "allreduce",
    "attention_decode": "attention_decode", "elementwise": "elementwise", "embedding": "elementwise",
    "rejection": "sampling",
}  # fmt: skip
_SHARED = 0.5
"""Share of a family's variance that is the same in plain and in verification steps."""
_DRAWS = 4000
_NORMAL = 1.2533
"""Standard deviation over mean absolute error of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Band:
    """A figure and the interval that holds it with probability `LEVEL`."""

    low: float
    value: float
    high: float


def relative_band(
    static: StaticBatches, drafts: int, batch: float, context_tokens: int, acceptance_error: float
) -> tuple[float, float]:
    """Ends of the band of the speedup of a round, as factors on it.

    A family is off by the error of its calibration (that of kin where the GPU was not measured), normal in the
    logarithm, half of its variance common to steps without and with drafts.

    Args:
        static: prices.
        drafts: of the round.
        batch: sequences in it.
        context_tokens: cached of each.
        acceptance_error: relative standard deviation of the accepted tokens.
    """
    draws = np.random.default_rng(int(key(0, "advice band")))
    errors = family_errors(static)
    plain, rounds = _families(static, drafts, batch, context_tokens)
    plain_s, round_s = np.zeros(_DRAWS), np.zeros(_DRAWS)
    for name in sorted(set(plain) | set(rounds)):
        common, own, other = draws.standard_normal((3, _DRAWS))
        error, both, each = errors[name], _SHARED**0.5 * common, (1 - _SHARED) ** 0.5
        plain_s += plain.get(name, 0.0) * np.exp(error * (both + each * own))
        round_s += rounds.get(name, 0.0) * np.exp(error * (both + each * other))
    accepted = static.emitted(drafts) - 1.0
    emitted = 1.0 + np.minimum(accepted * np.exp(acceptance_error * draws.standard_normal(_DRAWS)), float(drafts))
    nominal = (1.0 + accepted) * sum(plain.values()) / sum(rounds.values())
    ends: Column = np.quantile(emitted * plain_s / round_s, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) / nominal
    return float(ends[0]), float(ends[1])


def family_errors(static: StaticBatches) -> dict[str, float]:
    """Standard deviation of the logarithm of each family's time."""
    constants, gpu = static.plain.target.constants, resolve(static.experiment.cluster)[0]
    found = {}
    for name, source in _FAMILIES.items():
        error = getattr(constants, source).error
        if gpu.name != constants.gpu:
            kin = constants.kin_errors if gpu.architecture == constants.architecture else constants.stranger_errors
            error = kin.get(source, error)
        found[name] = _NORMAL * (ASSUMED if error is None else error)
    return found | {"host": ASSUMED, "attention_prefill": 0.0}


def _families(
    static: StaticBatches, drafts: int, batch: float, context_tokens: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds per family without and with drafts."""

    def priced(cost: StepCost, width: int) -> dict[str, float]:
        shape = StepShape(sequences=batch, width=width, context_tokens=batch * context_tokens)
        return {name: float(seconds) for name, seconds in cost.families(shape).items()}

    rounds = static.at(drafts)
    return priced(static.plain, 1), priced(rounds, rounds.width)
