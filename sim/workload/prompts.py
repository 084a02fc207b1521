"""System prompts that requests share, and the ids of the blocks they make common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.draws import derive, key, uniform
from sim.workload.base import generator, require_at_least
from sim.workload.lengths import Lengths


@dataclass(kw_only=True, slots=True)
class SystemPrompts:
    """`number` different system prompts; each session opens with one of them.

    Attributes:
        number: >= 1.
        tokens: distribution of their lengths.
        skew: exponent of a Zipf law over them, >= 0: the k-th is chosen in proportion to k^-skew; 0 for all alike.
    """

    number: int
    tokens: Lengths
    skew: float = 0.0

    def check(self, prefix: str) -> None:
        """Refuses bad settings; `prefix` is where the prompts stand, such as `workload.system`.

        Raises:
            ValueError: an idle or out-of-range setting.
        """
        require_at_least(f"{prefix}.number", self.number, 1)
        require_at_least(f"{prefix}.skew", self.skew, 0)
        if self.skew > 0 and self.number == 1:
            raise ValueError(f"{prefix}.skew has no effect with one system prompt, got {self.skew}; set it to 0")
        self.tokens.check(f"{prefix}.tokens")

    def lengths(self, seed: int) -> NDArray[np.int64]:
        """Tokens int64 (number,) of each system prompt."""
        return self.tokens.sample(self.number, generator(seed, "system_tokens"))

    def choose(self, n: int, seed: int) -> NDArray[np.int64]:
        """The system prompt int64 (n,) of each session; a larger `n` appends and changes none."""
        below = np.cumsum(np.arange(1, self.number + 1, dtype=np.float64) ** -self.skew)
        drawn = uniform(derive(key(seed, "system"), np.arange(n))) * below[-1]
        chosen: NDArray[np.int64] = np.minimum(np.searchsorted(below, drawn, side="right"), self.number - 1)
        return chosen
