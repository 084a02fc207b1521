"""When replicas die, for how long, and what becomes of their requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import inf, log1p
from typing import Any, NamedTuple

from sim.draws import Keys, derive, uniform
from sim.serving.ticks import ticks


class Outage(NamedTuple):
    """A replica is down from tick `dies` to tick `back`, None for ever."""

    dies: int
    back: int | None


@dataclass(kw_only=True, slots=True)
class Failures(ABC):
    """A replica that dies loses the step under way and all KV; its requests go back to the router.

    Attributes:
        most_retries: how often one request is sent again; 0: whatever was in a replica that dies is lost.
        keep_tokens: a request sent again goes on behind the tokens it had out, which are prefilled with its prompt;
            otherwise it starts anew, and its first token counts again.
        retry_after_s: from the failure until its requests are sent again.
    """

    most_retries: int = 3
    keep_tokens: bool = True
    retry_after_s: float = 0.0

    def __post_init__(self) -> None:
        if self.most_retries < 0:
            raise ValueError(f"failures.most_retries must be >= 0, got {self.most_retries}")
        if not 0 <= self.retry_after_s < inf:
            raise ValueError(f"failures.retry_after_s must be >= 0 and finite, got {self.retry_after_s}")
        if not self.most_retries and (self.retry_after_s or not self.keep_tokens):
            raise ValueError(
                "failures.retry_after_s and keep_tokens have no effect with failures.most_retries = 0; leave them out"
            )

    def check(self, replicas: int) -> None:  # noqa: B027 - most have nothing to refuse
        """Refuse what does not fit a fleet of so many replicas."""

    @abstractmethod
    def outages(self, replica: int, key: Keys) -> Iterator[Outage]:
        """The outages of replica number `replica` in order; `key` is that of the run's failures."""


@dataclass(kw_only=True, slots=True)
class RandomFailures(Failures):
    """Exponential times between a start and the next failure.

    Attributes:
        mean_up_s: mean time from a replica's start to its failure, > 0.
        down_s: from a failure until the replica serves again: noticing, restarting, loading weights.
    """

    mean_up_s: float
    down_s: float

    def __post_init__(self) -> None:
        Failures.__post_init__(self)
        for name in ("mean_up_s", "down_s"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"failures.{name} must be > 0 and finite, got {getattr(self, name)}")

    def outages(self, replica: int, key: Keys) -> Iterator[Outage]:
        """Without end."""
        own, back = derive(key, replica), 0
        for number in count():
            dies = back + max(1, ticks(-self.mean_up_s * log1p(-float(uniform(derive(own, number))))))
            back = dies + max(1, ticks(self.down_s))
            yield Outage(dies, back)


@dataclass(kw_only=True, slots=True)
class PlannedFailures(Failures):
    """Failures at given times.

    Attributes:
        outages_s: [replica, at_s, down_s] each; those of one replica in order and apart. down_s may be infinite.
    """

    outages_s: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        Failures.__post_init__(self)
        if not self.outages_s:
            raise ValueError("failures.outages_s must hold at least one [replica, at_s, down_s], got none")
        free_from: dict[float, float] = {}
        for row in self.outages_s:
            if not _is_outage(row):
                raise ValueError(
                    f"failures.outages_s must hold [replica >= 0, at_s >= 0, down_s > 0] in each row, got {row}"
                )
            replica, at_s, down_s = row
            if at_s < free_from.get(replica, 0.0):
                raise ValueError(
                    f"failures.outages_s must list a replica's outages in order and apart, got one at {at_s} s for "
                    f"replica {replica:.0f}, which is down until {free_from[replica]} s"
                )
            free_from[replica] = at_s + down_s

    def check(self, replicas: int) -> None:
        """Every outage names a replica."""
        most = int(max(row[0] for row in self.outages_s))
        if most >= replicas:
            raise ValueError(f"failures.outages_s must name replicas 0 to {replicas - 1}, got {most}")

    def outages(self, replica: int, key: Keys) -> Iterator[Outage]:
        """Those of the list."""
        for number, at_s, down_s in self.outages_s:
            if number == replica:
                dies = ticks(at_s)
                yield Outage(dies, None if down_s == inf else dies + max(1, ticks(down_s)))


def _is_outage(row: list[Any]) -> bool:
    """Whether it says which replica dies when and for how long; integers are numbers too, in YAML as in a shell."""
    if len(row) != 3 or not all(isinstance(figure, int | float) for figure in row):
        return False
    replica, at_s, down_s = row
    return bool(0 <= replica < inf and replica % 1 == 0 and 0 <= at_s < inf and down_s > 0)
