"""What every reader returns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from sim.speculation.acceptance import Acceptance, RatePerPosition


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFigures:
    """Acceptance as an engine reported it.

    Attributes:
        figure: what was read: "unconditional rate per position", "acceptance length" or "system efficiency" (sigma).
        acceptance: the distribution it gives: exact for rates per position, geometric for a mean length.
        acceptance_length: mean tokens per round, accepted + 1.
        accepted_per_drafted: the engine's acceptance rate, not alpha; None where drafts were not counted.
        rounds: rounds behind the figures, 0 where the engine does not say.
    """

    figure: str
    acceptance: Acceptance
    acceptance_length: float
    accepted_per_drafted: float | None = None
    rounds: float = 0.0


def from_accepted_per_position(accepted: list[float], rounds: float, drafted: float, where: str) -> EngineFigures:
    """Figures from counts: at how many of `rounds` the first 1, 2, ... drafts were all accepted.

    Raises:
        ValueError: no rounds, more accepted than rounds, or counts that grow with the position; `where` opens it.
    """
    if rounds <= 0:
        raise ValueError(f"{where}: must hold at least one round with drafts, got {rounds:g}")
    if any(after > before for before, after in pairwise([rounds, *accepted])):
        raise ValueError(
            f"{where}: accepted drafts per position must not grow from {rounds:g} rounds on, got {accepted}"
        )
    return EngineFigures(
        figure="unconditional rate per position",
        acceptance=RatePerPosition(rates=[count / rounds for count in accepted]),
        acceptance_length=1.0 + sum(accepted) / rounds,
        accepted_per_drafted=sum(accepted) / drafted if drafted else None,
        rounds=rounds,
    )
