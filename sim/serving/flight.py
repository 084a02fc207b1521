"""Two pools of replicas, a request on its way between them, and what the decode pool's router may ask."""

from __future__ import annotations

from collections.abc import Sequence as Sequenced
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sim.draws import derive, key, uniform
from sim.serving.decode_rank import DecodeRank
from sim.serving.prefill_rank import PrefillRank
from sim.serving.replicas import AnyReplica
from sim.serving.router import Arrival, Router
from sim.serving.sequence import Sequence
from sim.serving.transfer import KvTransfer


@dataclass(slots=True)
class Flight:
    """A request between the pools, from its hand-over until its KV is there.

    Attributes:
        sequence: as the decode side sees it.
        sender: the prefill replica that has its KV.
        computed: when its prefill ends.
        receiver: the decode replica it goes to; None while none is up.
        there: when its KV will be there; None until the transfer begins.
    """

    sequence: Sequence
    sender: int
    computed: int
    receiver: int | None = None
    there: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pools:
    """Two pools of replicas.

    Attributes:
        prefill, decode: one rank per replica.
        prefill_router, decode_router: who chooses among them.
        transfer: of KV from one to the other.
    """

    prefill: Sequenced[PrefillRank]
    decode: Sequenced[DecodeRank]
    prefill_router: Router
    decode_router: Router
    transfer: KvTransfer


class TwoPools(Protocol):
    """A fleet with a decode pool.

    Attributes:
        loads, replicas: as of ReplicaFleet.
    """

    loads: list[int]
    replicas: list[AnyReplica]

    @property
    def decoders(self) -> Sequenced[int]:
        """Numbers of the decode replicas that are up."""


class DecodePool:
    """What the router of the decode pool may ask."""

    def __init__(self, fleet: TwoPools, seed: int) -> None:
        self._fleet = fleet
        self._key = key(seed, "decode router")

    def load_at(self, time: int) -> list[int]:
        """Requests in each decode replica that is up, those on the way to it included."""
        return [self._fleet.loads[number] for number in self._fleet.decoders]

    def tokens_at(self, time: int) -> list[int]:
        """Prompt tokens and tokens out of them."""
        return [self._fleet.replicas[number].tokens_at(time) for number in self._fleet.decoders]

    def prefix_hits_at(self, time: int, sequence: Sequence) -> list[int]:
        """None: decode ranks keep no prefix cache, which `Router.check` has told."""
        return [0] * len(self._fleet.decoders)

    def draws(self, arrival: Arrival, count: int) -> list[float]:
        """As the fleet's, but others."""
        own = derive(derive(self._key, arrival.sequence.request), arrival.attempt)
        numbers: list[float] = uniform(derive(own, np.arange(count))).tolist()
        return numbers
