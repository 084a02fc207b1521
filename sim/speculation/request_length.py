"""Draft lengths of each request's own: by its recent acceptance, or by an oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.speculation.length import Length, refuse_drafts

Counts = NDArray[np.int64]


@dataclass(kw_only=True, slots=True)
class RequestLength(Length):
    """A length that follows from the request's own rounds, so that its future is known when it is admitted."""

    @property
    def per_request(self) -> bool:
        """Always."""
        return True

    def first(self, requests: int) -> Counts:
        """State of `requests` requests before their first round: the length they draft, shape (requests,)."""
        raise NotImplementedError

    def drafts(self, state: Counts, depth: Counts) -> Counts:
        """Drafts of a round, given the states and (for an oracle only) the acceptable depths."""
        raise NotImplementedError

    def next(self, state: Counts, drafts: Counts, accepted: Counts) -> Counts:
        """States after a round."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class StepUpDown(RequestLength):
    """Longer by `up` after a round that accepted every draft, shorter by `down` after any other.

    Up 2 and down 1 is the `heuristic` schedule of Hugging Face's assisted generation.

    Attributes:
        start: length of a request's first round.
        least, most: bounds.
        up, down: by how much.
    """

    start: int
    most: int
    least: int = 1
    up: int = 2
    down: int = 1

    def __post_init__(self) -> None:
        refuse_drafts("most", self.most)
        refuse_drafts("least", self.least)
        if not self.least <= self.start <= self.most:
            raise ValueError(
                f"speculation.length.start must lie in [least, most] = [{self.least}, {self.most}], got {self.start}"
            )
        if self.least == self.most:
            raise ValueError(f"speculation.length.least must be < most = {self.most}; for one length take fixed")
        for name in ("up", "down"):
            if getattr(self, name) < 1:
                raise ValueError(f"speculation.length.{name} must be >= 1, got {getattr(self, name)}")

    @property
    def most_drafts(self) -> int:
        """`most`."""
        return self.most

    def first(self, requests: int) -> Counts:
        """`start` everywhere."""
        return np.full(requests, self.start, dtype=np.int64)

    def drafts(self, state: Counts, depth: Counts) -> Counts:
        """The state is the length."""
        return state

    def next(self, state: Counts, drafts: Counts, accepted: Counts) -> Counts:
        """Up or down."""
        moved = np.where(accepted == drafts, state + self.up, state - self.down)
        return np.clip(moved, self.least, self.most)


@dataclass(kw_only=True, slots=True)
class Oracle(RequestLength):
    """Drafts exactly what will be accepted, up to `most`: the upper bound of every policy, not a policy to run."""

    most: int

    def __post_init__(self) -> None:
        refuse_drafts("most", self.most)

    @property
    def most_drafts(self) -> int:
        """`most`."""
        return self.most

    def first(self, requests: int) -> Counts:
        """No state."""
        return np.zeros(requests, dtype=np.int64)

    def drafts(self, state: Counts, depth: Counts) -> Counts:
        """The acceptable depth."""
        return depth

    def next(self, state: Counts, drafts: Counts, accepted: Counts) -> Counts:
        """Nothing to learn."""
        return state
