"""What speculation is made of: a drafter, a draft length, an acceptance."""

from __future__ import annotations

from dataclasses import dataclass

from sim.speculation.acceptance import Acceptance
from sim.speculation.draft import Drafter
from sim.speculation.length import Length


@dataclass(kw_only=True, slots=True)
class Speculation:
    """Speculative decoding as configured; its absence is `None`.

    Raises:
        ValueError: longer drafts than the drafter proposes, or lengths per request where the drafts are a tree.
    """

    drafter: Drafter
    length: Length
    acceptance: Acceptance

    def __post_init__(self) -> None:
        most = self.length.most_drafts
        self.drafter.check_length(most)
        if self.length.per_request and self.drafter.verify_tokens(most) != most + 1:
            raise ValueError(
                f"speculation.length {type(self.length).__name__} chooses per request, which a tree of drafts cannot "
                "follow; take a length per batch, or speculation.drafter.top_k=1"
            )
