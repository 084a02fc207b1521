"""Routers: which replica a request goes to, from what the replicas say of the instant it arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from sim.serving.rank import Rank
from sim.serving.sequence import Sequence


class Arrival(NamedTuple):
    """A request that arrives.

    Attributes:
        number: how many were routed before.
        sequence: the request, not yet in any replica.
        attempt: how often it was sent before.
        time: steps that end before this tick are over, and no others.
    """

    number: int
    sequence: Sequence
    attempt: int
    time: int


class Fleet(Protocol):
    """What a router may ask; rows are the replicas that are up, in order of number."""

    def load_at(self, time: int) -> Row[int]:
        """Requests each replica holds."""

    def tokens_at(self, time: int) -> Row[int]:
        """Prompt tokens and tokens out so far of the requests each replica holds."""

    def prefix_hits_at(self, time: int, sequence: Sequence) -> Row[int]:
        """Tokens of `sequence` whose KV each replica has."""

    def draws(self, arrival: Arrival, count: int) -> Row[float]:
        """Uniform numbers in [0, 1): a function of the seed, the request and its attempt."""


@dataclass(kw_only=True, slots=True)
class Router(ABC):
    """A routing policy.

    Attributes:
        counts_tokens: whether it asks for `tokens_at`.
    """

    counts_tokens: ClassVar[bool] = False

    def check(self, ranks: Row[Rank]) -> None:  # noqa: B027 - most ask nothing special
        """Refuse ranks that cannot answer its questions."""

    @abstractmethod
    def choose(self, arrival: Arrival, fleet: Fleet) -> int:
        """Index of the replica for `arrival` among those that are up."""


@dataclass(kw_only=True, slots=True)
class RoundRobin(Router):
    """Replica i mod n for the i-th request."""

    def choose(self, arrival: Arrival, fleet: Fleet) -> int:
        """The next replica in turn."""
        return arrival.number % len(fleet.load_at(arrival.time))


@dataclass(kw_only=True, slots=True)
class LeastRequests(Router):
    """The replica with the fewest requests in it, the first of them on a tie."""

    def choose(self, arrival: Arrival, fleet: Fleet) -> int:
        """The least loaded replica."""
        loads = fleet.load_at(arrival.time)
        return loads.index(min(loads))


@dataclass(kw_only=True, slots=True)
class Random(Router):
    """Any replica, all as likely."""

    def choose(self, arrival: Arrival, fleet: Fleet) -> int:
        """By one draw."""
        return int(fleet.draws(arrival, 1)[0] * len(fleet.load_at(arrival.time)))


@dataclass(kw_only=True, slots=True)
class PowerOfTwo(Router):
    """The one with fewer requests of two replicas drawn at random (Mitzenmacher, IEEE TPDS 12, 2001)."""

    def choose(self, arrival: Arrival, fleet: Fleet) -> int:
        """The first drawn on a tie."""
        loads = fleet.load_at(arrival.time)
        if len(loads) == 1:
            return 0
        one, other = fleet.draws(arrival, 2)
        first, second = int(one * len(loads)), int(other * (len(loads) - 1))
        second += second >= first
        return first if loads[first] <= loads[second] else second


@dataclass(kw_only=True, slots=True)
class LeastTokens(Router):
    """The replica whose requests have the fewest tokens, prompts and what is out of their answers, waiting ones too.

    That is what a router can know: how long an answer will get it cannot (SGLang's data parallel controller balances
    `total_tokens` likewise).
    """

    counts_tokens: ClassVar[bool] = True

    def choose(self, arrival: Arrival, fleet: Fleet) -> int:
        """The first of them on a tie."""
        tokens = fleet.tokens_at(arrival.time)
        return tokens.index(min(tokens))


@dataclass(kw_only=True, slots=True)
class PrefixAware(Router):
    """The replica with most of the prompt in its KV cache, unless that is little or the loads are far apart.

    Rule and defaults of the `cache_aware` policy of the SGLang and vLLM routers; theirs guess from past requests what
    a replica has cached, this one looks. Where too little is cached, and where loads are out of balance, the replica
    with the fewest requests takes it (theirs the one with the smallest record of prompts in the first case).

    Attributes:
        threshold: least share of the prompt that must be cached, in [0, 1].
        most_ahead: requests that the fullest replica may have more than the emptiest,
        most_ratio: or how many times as many, before load decides.
    """

    threshold: float = 0.3
    most_ahead: int = 64
    most_ratio: float = 1.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"router.threshold must lie in [0, 1], got {self.threshold}")
        if self.most_ahead < 0:
            raise ValueError(f"router.most_ahead must be >= 0, got {self.most_ahead}")
        if self.most_ratio < 1.0:
            raise ValueError(f"router.most_ratio must be >= 1, got {self.most_ratio}")

    def check(self, ranks: Row[Rank]) -> None:
        """They must cache prefixes."""
        if any(rank.pool.content is None for rank in ranks):
            raise ValueError(
                "router PrefixAware has no effect without prefix caching; set scheduler.prefix_caching=true or choose "
                "another router"
            )

    def choose(self, arrival: Arrival, fleet: Fleet) -> int:
        """The longest hit; of equal hits the fewest requests; of those the first."""
        loads = fleet.load_at(arrival.time)
        least, most = min(loads), max(loads)
        if most - least > self.most_ahead and most > self.most_ratio * least:
            return loads.index(least)
        hits = fleet.prefix_hits_at(arrival.time, arrival.sequence)
        best = max(range(len(loads)), key=lambda i: (hits[i], -loads[i], -i))
        if hits[best] <= self.threshold * arrival.sequence.prompt_tokens:
            return loads.index(least)
        return best
