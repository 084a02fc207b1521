"""Routers: which replica a request goes to, from what the replicas say of the instant it arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import Protocol


class Fleet(Protocol):
    """What a router may ask."""

    def load_at(self, time: int) -> Row[int]:
        """Requests each replica holds at tick `time`, finishes at that tick not yet counted."""


@dataclass(kw_only=True, slots=True)
class Router(ABC):
    """A routing policy."""

    @abstractmethod
    def choose(self, request: int, time: int, fleet: Fleet) -> int:
        """Index of the replica for request number `request` (in order of arrival), which arrives at tick `time`."""


@dataclass(kw_only=True, slots=True)
class RoundRobin(Router):
    """Replica i mod n for the i-th request."""

    def choose(self, request: int, time: int, fleet: Fleet) -> int:
        """The next replica in turn."""
        return request % len(fleet.load_at(time))


@dataclass(kw_only=True, slots=True)
class LeastRequests(Router):
    """The replica with the fewest requests in it, the first of them on a tie."""

    def choose(self, request: int, time: int, fleet: Fleet) -> int:
        """The least loaded replica."""
        loads = fleet.load_at(time)
        return loads.index(min(loads))
