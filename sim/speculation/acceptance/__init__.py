"""Acceptance: how many draft tokens in a row the target would accept at a position of a request's output.

A position has one *acceptable depth* d, whatever is drafted there: a round that starts there with gamma drafts accepts
min(d, gamma) of them and emits one token more (rejection sampling stops at the first rejection: Leviathan et al., 2023,
algorithm 1). So every draft length, the replay of recorded depths and the oracle are the same draw.
"""

from sim.speculation.acceptance.base import Acceptance
from sim.speculation.acceptance.groups import RatePerGroup
from sim.speculation.acceptance.length import MeanLength
from sim.speculation.acceptance.rates import ConstantRate, RatePerDepth, RatePerPosition
from sim.speculation.acceptance.recorded import Recorded
from sim.speculation.acceptance.varying import BetaRate, DriftingRate

__all__ = [
    "Acceptance",
    "BetaRate",
    "ConstantRate",
    "DriftingRate",
    "MeanLength",
    "RatePerDepth",
    "RatePerGroup",
    "RatePerPosition",
    "Recorded",
]
