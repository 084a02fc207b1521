"""Routing in which the tokens of one sequence share experts with their neighbours, as trained gates make them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.routing import Routing
from sim.cost.shape import Count, Seconds
from sim.theory import activated_experts


@dataclass(kw_only=True)
class Neighbours(Routing):
    """Sequences draw independently; inside one, a token counts as less than a whole independent one.

    Cohere reports for a top-8 of 128 model that the token next to another shares 38.1 % of its experts with it and that
    four neighbours hit 20.4 experts where independence gives 29 (cohere.com/blog/mixture-of-experts-models-get-more-from-
    speculative-decoding). In eq. 8 of MoESD that is 1.65 and 2.68 independent tokens.

    Attributes:
        second: independent tokens that the second token of a sequence counts for, in [0, 1].
        later: the same for each one after it.
    """

    second: float = 0.654
    later: float = 0.515

    def __post_init__(self) -> None:
        for name in ("second", "later"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"routing.{name} must lie in [0, 1], got {value}")

    def distinct(self, experts: int, per_token: int, sequences: Count, width: Count, prefill_tokens: Count) -> Seconds:
        """Eq. 8 of MoESD at the independent tokens."""
        wide = np.asarray(width, dtype=np.float64)
        each = np.minimum(wide, 1.0) + self.second * np.clip(wide - 1.0, 0.0, 1.0)
        each = each + self.later * np.maximum(wide - 2.0, 0.0)
        hit: Seconds = activated_experts(sequences * each + prefill_tokens, experts, per_token)
        return hit
