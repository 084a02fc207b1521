"""Draft lengths: how many tokens to draft.

A policy is a value. What it decides from, the batch or what rounds brought, is handed to its `chooser` (one per rank)
or, where every request has a length of its own, to its `walk` (`sim.speculation.walk`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

MOST_DRAFTS = 64
FOREVER = 1 << 62


class Choice(NamedTuple):
    """A draft length, and for how long it stands while the same sequences run.

    Attributes:
        drafts: tokens to draft per sequence.
        until_cached: it stands while fewer tokens than this are cached in the batch.
        steps: and for at most so many steps.
    """

    drafts: int
    until_cached: int = FOREVER
    steps: int = FOREVER


class Offers(Protocol):
    """How many tokens a drafter that may find nothing proposes, at `positions` of the requests with these keys."""

    def __call__(self, keys: NDArray[np.uint64], positions: NDArray[np.int64], drafts: int) -> NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a policy may ask of the deployment.

    Attributes:
        step_s: (sequences, cached tokens of the batch, drafts) -> seconds of a step.
        emitted: drafts -> expected tokens that a round emits per sequence.
    """

    step_s: Callable[[int, int, int], float]
    emitted: Callable[[int], float]


class Chooser(ABC):
    """The decisions of one rank."""

    @abstractmethod
    def choose(self, sequences: int, cached: int) -> Choice:
        """Draft length of a step in which `sequences` (>= 1) decode over `cached` tokens."""

    def observe(self, steps: int, tokens: int, ticks: int) -> None:  # noqa: B027  (most learn nothing)
        """`steps` steps of the chosen length emitted `tokens` in `ticks`; blocks of any length add up the same."""


@dataclass(kw_only=True, slots=True)
class Length(ABC):
    """A draft length policy."""

    @property
    @abstractmethod
    def most_drafts(self) -> int:
        """The longest draft it ever asks for."""

    @property
    def per_request(self) -> bool:
        """Whether requests of one batch may have different lengths."""
        return False

    def chooser(self, outlook: Outlook) -> Chooser | None:
        """The decisions of one rank; None where the length never changes."""
        return None


@dataclass(kw_only=True, slots=True)
class Fixed(Length):
    """Always `drafts` tokens (vLLM `num_speculative_tokens`)."""

    drafts: int

    def __post_init__(self) -> None:
        refuse_drafts("drafts", self.drafts)

    @property
    def most_drafts(self) -> int:
        """`drafts`."""
        return self.drafts


def refuse_drafts(name: str, drafts: int, least: int = 1) -> None:
    """Raise ValueError unless `drafts` is a length that can be asked for."""
    if not least <= drafts <= MOST_DRAFTS:
        raise ValueError(
            f"speculation.length.{name} must lie in [{least}, {MOST_DRAFTS}], got {drafts}; "
            "for none take speculation=off"
        )
