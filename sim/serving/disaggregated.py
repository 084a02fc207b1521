"""Disaggregated serving: one pool of replicas prefills, another decodes, KV goes from one to the other."""

from __future__ import annotations

from collections.abc import Sequence as Sequenced
from functools import partial
from typing import cast

from sim.metrics.record import NOT_YET, Recorder, Transfers
from sim.request import Requests
from sim.serving.clock import ANNOUNCE, HAND_OVER, LINK, RECEIVED, Environment, Timetable, tick
from sim.serving.decode_rank import DecodeRank
from sim.serving.failures import Failures, Outage
from sim.serving.fleet import ReplicaFleet, Spare
from sim.serving.flight import DecodePool, Flight, Pools
from sim.serving.pool_replicas import DecodeReplica, PrefillReplica
from sim.serving.prefill_rank import PrefillRank
from sim.serving.replicas import AnyReplica, Unit
from sim.serving.router import Arrival
from sim.serving.sequence import Sequence
from sim.serving.transfer import Links


class DisaggregatedFleet(ReplicaFleet):
    """Replicas number 0 on prefill, those after them decode.

    A request goes through the router to a prefill replica, which emits its first token; then through the decode router
    to a decode replica, which sets its blocks aside (see `DecodeRank`); then its KV is sent, while the blocks on the
    prefill side stay (`PrefillRank`). With layer-wise overlap it is handed over when the last step of its prefill
    begins. If the replica that has its KV dies it starts again with what tokens it had.

    Args:
        env, requests, recorder, seed, failures, spare: as for ReplicaFleet; failures number all replicas through.
        pools: the replicas and what is between them.
    """

    def __init__(
        self,
        env: Environment,
        pools: Pools,
        requests: Requests,
        recorder: Recorder,
        *,
        seed: int = 0,
        failures: Failures | None = None,
        spare: Spare | None = None,
    ) -> None:
        self._prefills = len(pools.prefill)
        self._transfer = pools.transfer
        self._decode_router = pools.decode_router
        self._decode_router.check(pools.decode)
        self._decode_pool = DecodePool(self, seed)
        ranks = [*pools.prefill, *pools.decode]
        self._links = Links(len(ranks))
        self._flights: dict[int, Flight] = {}
        self._grounded: list[int] = []
        self._handed = 0
        self._hand_overs = Timetable(env, HAND_OVER, self._hand_over)
        self._announcements = Timetable(env, ANNOUNCE, self._hand_over)
        self._transfers = Timetable(env, LINK, self._begin)
        self._arrivals = Timetable(env, RECEIVED, self._received)
        ReplicaFleet.__init__(
            self, env, ranks, pools.prefill_router, requests, recorder, seed=seed, failures=failures, spare=spare
        )
        recorder.transfers = self._times = Transfers(len(requests))

    @property
    def decoders(self) -> list[int]:
        """Numbers of the decode replicas that are up."""
        if self._up is None:
            return list(range(self._prefills, len(self.replicas)))
        return [number for number in self._up if number >= self._prefills]

    @property
    def unanswered(self) -> list[int]:
        """As in ReplicaFleet, for either pool."""
        return self._stranded + self._grounded

    def load_at(self, time: int) -> list[int]:
        """As in ReplicaFleet, of the prefill replicas."""
        return ReplicaFleet.load_at(self, time)[: self._prefillers()]

    def finished(self, number: int, requests: list[int]) -> None:
        """Requests are over, or the prefill of theirs is."""
        if number >= self._prefills:
            self.loads[number] -= len(requests)
            if self._decode_router.counts_tokens:
                self.replicas[number].tokens -= sum(self._prompt[r] + self._output[r] for r in requests)
            if self._watched:
                self._end(requests)
            return
        replica = self._sender(number)
        self.loads[number] -= len(requests)
        for request in requests:
            sequence = replica.rank.sending[request]
            if self._router.counts_tokens:
                replica.tokens -= sequence.prompt_tokens + sequence.emitted
            self._prefilled(number, sequence)

    def left(self, number: int, sequences: list[Sequence], emitted: list[int]) -> None:
        """As in ReplicaFleet; a prefill that was complete just then is handed to nobody."""
        ReplicaFleet.left(self, number, sequences, emitted)
        if number < self._prefills:
            rank = self._sender(number).rank
            for sequence in sequences:
                if rank.sending.get(sequence.request) is sequence:
                    rank.ended.remove(sequence.request)
                    rank.sent(sequence.request)

    def _entrances(self, ranks: Sequenced[Unit]) -> Sequenced[Unit]:
        return ranks[: self._prefills]

    def _replica(self, number: int, rank: Unit) -> AnyReplica:
        """Plans wait until all that ends at the same instant has ended, for hand-overs are such."""
        self._connect(number, rank)
        if number < self._prefills:
            counts = self._router.counts_tokens
            return PrefillReplica(
                self._env, number, cast(PrefillRank, rank), self._recorder, settle=True, counts_tokens=counts
            )
        counts = self._decode_router.counts_tokens
        return DecodeReplica(
            self._env, number, cast(DecodeRank, rank), self._recorder, settle=True, counts_tokens=counts
        )

    def _connect(self, number: int, rank: Unit) -> None:
        """The rank tells the fleet what it must know."""
        if isinstance(rank, DecodeRank):
            rank.set_aside = lambda request: self._transfers.add(tick(self._env), request)
        elif isinstance(rank, PrefillRank) and self._transfer.overlaps:
            rank.announce = partial(self._announce, number)

    def _prefillers(self) -> int:
        """How many prefill replicas are up; they come first among all that are."""
        if self._up is None:
            return self._prefills
        return sum(number < self._prefills for number in self._up)

    def _candidates(self) -> list[AnyReplica]:
        return ReplicaFleet._candidates(self)[: self._prefillers()]

    def _sender(self, number: int) -> PrefillReplica:
        return cast(PrefillReplica, self.replicas[number])

    def _receiver(self, number: int) -> DecodeReplica:
        return cast(DecodeReplica, self.replicas[number])

    def _route(self, sequence: Sequence, time: int) -> None:
        if not self._prefillers():
            self._emitted[sequence.request] = sequence.emitted
            self._stranded.append(sequence.request)
            return
        sequence.output_tokens = sequence.emitted + 1
        ReplicaFleet._route(self, sequence, time)

    def _announce(self, number: int, sequence: Sequence, end: int) -> None:
        """The prefill of `sequence` will be over at tick `end`."""
        if sequence.output_tokens < self._output[sequence.request]:
            self._take_off(number, sequence, sequence.output_tokens, end)
            self._announcements.add(tick(self._env), sequence.request)

    def _take_off(self, number: int, sequence: Sequence, emitted: int, computed: int) -> None:
        request = sequence.request
        handed = Sequence(request, sequence.prompt_tokens, self._output[request], emitted=emitted)
        handed.priority = sequence.priority
        self._flights[request] = Flight(handed, number, computed)

    def _prefilled(self, number: int, sequence: Sequence) -> None:
        """The prefill of `sequence` ended now."""
        request, recorder, now = sequence.request, self._recorder, tick(self._env)
        if recorder.cancelled[request] != NOT_YET:
            # Its client gave up while its layers were sent already.
            recorder.wasted[request] += sequence.emitted
            if recorder.first_token[request] >= recorder.cancelled[request]:
                recorder.first_token[request] = NOT_YET
        elif sequence.emitted == self._output[request]:
            recorder.finish[request], recorder.replica[request] = now, number
            self._sender(number).rank.sent(request)
            if self._watched:
                self._end([request])
        elif not self._transfer.overlaps:
            self._take_off(number, sequence, sequence.emitted, now)
            self._hand_overs.add(now, request)

    def _hand_over(self, request: int) -> None:
        """The decode router chooses; steps that end now are over."""
        flight, up = self._flights.get(request), self.decoders
        if flight is None:
            return
        if not up:
            self._grounded.append(request)
            return
        arrival = Arrival(self._handed, flight.sequence, self._recorder.retries[request], tick(self._env) + 1)
        number = up[self._decode_router.choose(arrival, self._decode_pool)]
        self._handed += 1
        flight.receiver = number
        self.loads[number] += 1
        if self._watched:
            self._places[request] = (number, flight.sequence)
        self.replicas[number].receive(flight.sequence)

    def _begin(self, request: int) -> None:
        """The blocks of `request` are set aside: its KV is sent."""
        flight, now = self._flights[request], tick(self._env)
        assert flight.receiver is not None
        ends, tokens = (flight.sender, flight.receiver), flight.sequence.prefill_tokens - 1
        start, there = self._links.send(self._transfer, ends, tokens, now, flight.computed)
        self._times.sender[request], self._times.start[request] = flight.sender, start
        flight.there = there
        self._arrivals.add(there, request)

    def _received(self, request: int) -> None:
        """The KV of `request` is there, unless that flight came to nothing."""
        flight, now = self._flights.get(request), tick(self._env)
        if flight is None or flight.there != now:
            return
        assert flight.receiver is not None
        self._times.there[request] = now
        if self._recorder.cancelled[request] != NOT_YET:
            self._abandon(flight)
            return
        del self._flights[request]
        self._sender(flight.sender).sent(request)
        self._receiver(flight.receiver).arrive(request)

    def _abandon(self, flight: Flight) -> None:
        """The client of a flight has given up: both sides forget it."""
        request = flight.sequence.request
        self._forget(flight)
        self._sender(flight.sender).sent(request)
        if self._recorder.cancelled[request] > flight.computed:
            self._recorder.wasted[request] += flight.sequence.emitted

    def _forget(self, flight: Flight) -> None:
        """The receiver forgets a flight."""
        del self._flights[flight.sequence.request]
        if flight.receiver is None:
            if flight.sequence.request in self._grounded:
                self._grounded.remove(flight.sequence.request)
            return
        self._receiver(flight.receiver).forget(flight.sequence)
        self.loads[flight.receiver] -= 1

    def _cancel(self, request: int) -> None:
        flight = self._flights.get(request)
        if flight is None:
            ReplicaFleet._cancel(self, request)
            return
        self._recorder.cancelled[request] = tick(self._env)
        self._recorder.replica[request] = flight.sender if flight.receiver is None else flight.receiver
        if flight.there is None:
            self._abandon(flight)
        self._end([request])

    def _die(self, number: int, failures: Failures, successor: Unit, outage: Outage) -> None:
        self._connect(number, successor)
        now, lost = tick(self._env), []
        for request, flight in sorted(self._flights.items()):
            if number not in {flight.sender, flight.receiver}:
                continue
            if self._recorder.cancelled[request] != NOT_YET:
                self._abandon(flight)
            elif number == flight.sender:
                self._forget(flight)
                if flight.computed < now:
                    lost.append(flight.sequence)
            elif flight.computed < now:
                del self._flights[request]
                self._sender(flight.sender).sent(request)
            else:
                # Its prefill goes on: another receiver is found for it.
                self._receiver(number).rank.forget(flight.sequence)
                flight.receiver = flight.there = None
                self._announcements.add(now, request)
        ReplicaFleet._die(self, number, failures, successor, outage)
        for sequence in sorted(lost, key=lambda sequence: sequence.request):
            self._give_back(sequence, failures)

    def _come_back(self, number: int) -> None:
        ReplicaFleet._come_back(self, number)
        if number >= self._prefills:
            grounded, self._grounded = self._grounded, []
            for request in grounded:
                self._hand_overs.add(tick(self._env), request)
