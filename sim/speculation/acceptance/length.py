"""Acceptance given by a mean acceptance length: the one figure that everybody publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.speculation.acceptance.base import Acceptance, check_rates, padded

SHAPES = ("geometric", "curve", "minimum_variance")
_HALVINGS = 200
_STEEPEST = 1e6


@dataclass(kw_only=True, slots=True)
class MeanLength(Acceptance):
    """The per-depth curve of a given shape whose mean acceptance length with `drafts` drafts is `length`.

    Attributes:
        length: mean tokens emitted per round, accepted + 1, in [1, drafts + 1].
        drafts: drafts per round when it was measured. Other draft lengths follow from the shape.
        shape: `geometric`, one conditional rate at every depth; `curve`, the conditional rates of `curve` all raised to
            one power; `minimum_variance`, survival clip(length - j, 0, 1) at depth j, which is what vLLM's
            `synthetic_acceptance_length` draws: the same mean with far less spread than real acceptance has.
        curve: conditional rates per depth, in (0, 1), at least `drafts` of them; deeper drafts are never accepted.
    """

    length: float
    drafts: int
    shape: str = "geometric"
    curve: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.drafts < 1:
            raise ValueError(f"speculation.acceptance.drafts must be >= 1, got {self.drafts}")
        if not 1.0 <= self.length <= self.drafts + 1:
            raise ValueError(
                f"speculation.acceptance.length must lie in [1, drafts + 1 = {self.drafts + 1}], got {self.length}; "
                "it counts the token that every round emits"
            )
        if self.shape not in SHAPES:
            raise ValueError(f"speculation.acceptance.shape must be one of {', '.join(SHAPES)}, got {self.shape!r}")
        if self.shape != "curve":
            if self.curve:
                raise ValueError(f"speculation.acceptance.curve has no effect with shape={self.shape}; remove it")
            return
        check_rates("curve", self.curve)
        if len(self.curve) < self.drafts or not 0.0 < min(self.curve) <= max(self.curve) < 1.0:
            raise ValueError(
                f"speculation.acceptance.curve must hold at least drafts = {self.drafts} rates inside (0, 1), "
                f"got {self.curve}"
            )

    def survival(self, depth: int) -> NDArray[np.float64]:
        """Of the fitted curve."""
        steps = np.arange(1, depth + 1, dtype=np.float64)
        if self.shape == "minimum_variance":
            return np.clip(self.length - steps, 0.0, 1.0)
        if self.shape == "geometric":
            return self._rate() ** steps
        survival: NDArray[np.float64] = np.multiply.accumulate(padded(self.curve, depth)) ** self._power()
        return survival

    def _rate(self) -> float:
        steps = np.arange(1, self.drafts + 1)
        return _root(lambda rate: float((rate**steps).sum()), self.length - 1.0, 0.0, 1.0)

    def _power(self) -> float:
        survival = np.multiply.accumulate(np.asarray(self.curve[: self.drafts]))
        return 1.0 / _root(
            lambda inverse: float((survival ** (1.0 / inverse)).sum()), self.length - 1.0, 0.0, _STEEPEST
        )


def _root(growing: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a growing function takes `value`, by bisection; `high` where it stays below."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if growing(middle) < value:
            low = middle
        else:
            high = middle
    return high
