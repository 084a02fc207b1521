"""Two pools of reference ranks, with the KV of every prompt sent from one to the other: one event per step."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

from tests.serving.reference import ReferenceFleet, tick
from tests.serving.reference_rank import Seq


@dataclass
class Flight:
    seq: Seq
    sender: int
    computed: int
    receiver: int | None = None
    there: int | None = None


class ReferencePools(ReferenceFleet):
    """The first `senders` ranks prefill. `hand(i, request, attempt, up, loads)` chooses among the receivers `up`."""

    def __init__(self, requests, ranks, senders, hand, transfer, fresh_receiver, **options):
        super().__init__(requests, ranks, None, **options)
        self.senders, self.hand, self.transfer, self.fresh_receiver = senders, hand, transfer, fresh_receiver
        self.flights, self.grounded, self.handed = {}, [], 0
        self.handing, self.announced = [], []
        self.free = [0] * len(ranks)

    def run(self):
        self.open()
        now = 0
        while True:
            while self.agenda and self.agenda[0][0] == now:
                _, kind, number = heappop(self.agenda)
                (self.down_or_up, self.give_up, self.send, self.send, self.there)[kind](number, now)
            self.end_steps(now)
            self.hand_over(self.handing, now)
            for request in sorted(self.freed):
                self.send(request, now)
            self.freed.clear()
            self.start(now)
            self.announce()
            while self.announced:
                self.hand_over(self.announced, now)
                self.start(now)
            times = [rank.end for rank in self.ranks if rank.end is not None] + [entry[0] for entry in self.agenda[:1]]
            if not times:
                return
            now = min(times)

    def start(self, now):
        for i, rank in enumerate(self.ranks):
            if rank.end is None and i in self.alive:
                rank.start_step(now)
        ready = [request for rank in self.ranks[self.senders :] for request in rank.ready]
        for rank in self.ranks[self.senders :]:
            rank.ready.clear()
        for request in sorted(ready):
            self.begin(request, now)

    def announce(self):
        """With overlap, prompts are handed over when the step begins that completes them."""
        for i, rank in enumerate(self.ranks[: self.senders]):
            for seq in rank.begun if self.transfer.overlaps else ():
                self.take_off(i, seq, seq.emitted + 1, rank.end, self.announced)
            rank.begun = []

    def take_off(self, number, seq, emitted, computed, queue):
        output = int(self.requests.output_tokens[seq.request])
        if emitted < output:
            target = seq.prompt + emitted - 1
            handed = Seq(seq.request, seq.prompt, output, emitted=emitted, target=target, done=target)
            self.flights[seq.request] = Flight(handed, number, computed)
            queue.append(seq.request)

    def hand_over(self, queue, now):
        handing = sorted(queue)
        queue.clear()
        up = [i for i in sorted(self.alive) if i >= self.senders]
        for request in handing:
            flight = self.flights.get(request)
            if flight is None:
                continue
            if not up:
                self.grounded.append(request)
                continue
            ranks, loads = [self.ranks[i] for i in up], [self.loads[i] for i in up]
            number = up[self.hand(self.handed, request, self.log["retries"][request], ranks, loads)]
            self.handed += 1
            self.loads[number] += 1
            self.where[request] = flight.receiver = number
            self.ranks[number].hand(flight.seq)

    def begin(self, request, now):
        flight = self.flights[request]
        sending = tick(self.transfer.bytes(flight.seq.target) / self.transfer.bytes_per_s)
        start = max(now, self.free[flight.sender], self.free[flight.receiver])
        if not self.transfer.overlaps:
            start = max(start, flight.computed)
        end = max(start + sending, flight.computed + -(-sending // self.transfer.layers))
        self.free[flight.sender] = self.free[flight.receiver] = end
        flight.there = max(end + tick(self.transfer.latency_s), start + 1, flight.computed + 1)
        heappush(self.agenda, (flight.there, 4, request))

    def there(self, request, now):
        flight = self.flights.get(request)
        if flight is None or flight.there != now:
            return
        if self.log["cancelled"][request] >= 0:
            self.abandon(flight)
            return
        del self.flights[request]
        self.ranks[flight.sender].free(request)
        self.ranks[flight.receiver].arrive(request)

    def abandon(self, flight):
        request = flight.seq.request
        self.drop(flight)
        self.ranks[flight.sender].free(request)
        if self.log["cancelled"][request] > flight.computed:
            self.log["wasted"][request] += flight.seq.emitted

    def drop(self, flight):
        del self.flights[flight.seq.request]
        if flight.receiver is not None:
            self.ranks[flight.receiver].forget(flight.seq)
            self.loads[flight.receiver] -= 1
        elif flight.seq.request in self.grounded:
            self.grounded.remove(flight.seq.request)

    def arrival(self, request, emitted):
        seq = super().arrival(request, emitted)
        seq.output = emitted + 1
        return seq

    def entrances(self):
        return [i for i in sorted(self.alive) if i < self.senders]

    def end_step(self, i, rank, now):
        if i >= self.senders:
            super().end_step(i, rank, now)
            return
        before = list(rank.running)
        rank.end_step()
        for seq in before:
            if (i, seq.request) in self.leaving:
                self.leave(i, rank, seq)
                if seq in rank.sending:
                    rank.free(seq.request)
            elif seq in rank.sending:
                self.loads[i] -= 1
                self.prefilled(i, rank, seq, now)
        rank.end = None

    def prefilled(self, i, rank, seq, now):
        log, request = self.log, seq.request
        if log["cancelled"][request] >= 0:
            log["wasted"][request] += seq.emitted
            if log["first"][request] >= log["cancelled"][request]:
                log["first"][request] = -1
        elif seq.emitted == self.requests.output_tokens[request]:
            log["finish"][request] = now
            rank.free(request)
            self.ended(request, now)
        elif not self.transfer.overlaps:
            self.take_off(i, seq, seq.emitted, now, self.handing)

    def give_up(self, request, now):
        flight = self.flights.get(request)
        if flight is not None:
            self.log["cancelled"][request] = now
            if flight.there is None:
                self.abandon(flight)
            self.ended(request, now)
            return
        number = self.where.get(request, 0)
        if number >= self.senders:
            rank = self.ranks[number]
            seq = next((s for s in rank.received if s.request == request), None)
            if seq is not None:
                self.log["cancelled"][request] = now
                rank.forget(seq)
                self.loads[number] -= 1
                self.log["wasted"][request] += seq.emitted
                self.ended(request, now)
                return
        super().give_up(request, now)

    def fresh_rank(self, number):
        return self.fresh() if number < self.senders else self.fresh_receiver()

    def die(self, number, now):
        lost = []
        for _, flight in sorted(self.flights.items()):
            if number not in {flight.sender, flight.receiver}:
                continue
            if self.log["cancelled"][flight.seq.request] >= 0:
                self.abandon(flight)
            elif number == flight.sender:
                self.drop(flight)
                if flight.computed < now:
                    lost.append(flight.seq)
            elif flight.computed < now:
                del self.flights[flight.seq.request]
                self.ranks[flight.sender].free(flight.seq.request)
            else:
                self.ranks[number].forget(flight.seq)
                flight.receiver = flight.there = None
                self.announced.append(flight.seq.request)
        if number >= self.senders:
            rank = self.ranks[number]
            lost += [*rank.incoming, *rank.coming.values(), *rank.received]
        super().die(number, now)
        for seq in sorted(lost, key=lambda s: s.request):
            self.give_back(seq, now)

    def down_or_up(self, number, now):
        back = number not in self.alive
        super().down_or_up(number, now)
        if back and number >= self.senders:
            self.handing += self.grounded
            self.grounded.clear()
