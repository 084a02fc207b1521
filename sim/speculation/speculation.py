"""What speculation is made of: a drafter, a draft length, an acceptance."""

from __future__ import annotations

from dataclasses import dataclass

from sim.speculation.acceptance import Acceptance
from sim.speculation.draft import Drafter
from sim.speculation.length import Length


@dataclass(kw_only=True, slots=True)
class Speculation:
    """Speculative decoding as configured; its absence is `None`."""

    drafter: Drafter
    length: Length
    acceptance: Acceptance
