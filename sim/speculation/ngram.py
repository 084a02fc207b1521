"""Drafts looked up in the text so far (n-gram, prompt lookup): no model, no KV, now and then nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.cost.drafting import Drafting
from sim.draws import Keys, derive, uniform
from sim.speculation.draft import Drafter
from sim.speculation.length import Offers

_STREAM = 0x4E6772616D
"""Sets the draws of matches apart from those of acceptance at the same request and position."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Whether a match is found at a request's position: all drafts with probability `rate`, else none."""

    rate: float

    def __call__(self, keys: Keys, positions: NDArray[np.int64], drafts: int) -> NDArray[np.int64]:
        """Drafts found at `positions`."""
        found = uniform(derive(derive(keys, positions), _STREAM)) < self.rate
        return np.where(found, drafts, 0)


@dataclass(kw_only=True, slots=True)
class NGram(Drafter):
    """Copies what followed the last tokens when they stood in the text before (vLLM `ngram`).

    A round without a match verifies nothing: its width is 1. The engine reserves no lookahead slots for it. Rates of
    acceptance are those given a match; a published curve that counts rounds without a match as zero is to be divided by
    `match_rate`.

    Attributes:
        match_rate: probability that a round finds a match.
        host_s, sequence_host_s: host time of the search, per round and per sequence in it. Defaults: 0.2 % of a step at
            batch 1 and 1.4 % at 512 on Llama-3.1-8B, H100, vLLM 0.10.1 (specdecode-bench.github.io).
    """

    match_rate: float
    host_s: float = 15.0e-6
    sequence_host_s: float = 1.1e-6

    def __post_init__(self) -> None:
        if not 0.0 < self.match_rate <= 1.0:
            raise ValueError(
                f"speculation.drafter.match_rate must lie in (0, 1], got {self.match_rate}; for none take "
                f"speculation=off"
            )
        for name in ("host_s", "sequence_host_s"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ValueError(f"speculation.drafter.{name} must be >= 0 and finite, got {getattr(self, name)}")

    def drafting(self, drafts: int) -> Drafting:
        """Host time alone, none where nothing is asked for."""
        return Drafting(host_s=self.host_s, sequence_host_s=self.sequence_host_s) if drafts else Drafting()

    def lookahead_tokens(self, drafts: int) -> int:
        """None."""
        return 0

    def offers(self) -> Offers | None:
        """All or nothing."""
        return Matches(self.match_rate) if self.match_rate < 1.0 else None
