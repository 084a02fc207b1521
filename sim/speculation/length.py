"""Draft lengths: how many tokens to draft."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

MOST_DRAFTS = 64


@dataclass(kw_only=True, slots=True)
class Length(ABC):
    """A draft length policy."""

    @property
    @abstractmethod
    def most_drafts(self) -> int:
        """The longest draft it ever asks for."""


@dataclass(kw_only=True, slots=True)
class Fixed(Length):
    """Always `drafts` tokens (vLLM `num_speculative_tokens`)."""

    drafts: int

    def __post_init__(self) -> None:
        if not 1 <= self.drafts <= MOST_DRAFTS:
            raise ValueError(
                f"speculation.length.drafts must lie in [1, {MOST_DRAFTS}], got {self.drafts}; "
                "for none take speculation=off"
            )

    @property
    def most_drafts(self) -> int:
        """`drafts`."""
        return self.drafts
