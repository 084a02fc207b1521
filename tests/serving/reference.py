"""One event per step, one loop per sequence: the slow simulator that the fast one must equal to the bit.

Written from the words of docs/architecture.md, not from sim.serving: no ledger, no paths, no blocks of steps, no
SimPy. It shares the prices and the draws with it, nothing else.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from tests.serving.reference_rank import Seq

TICKS_PER_S = 10**12


def simulate(requests, ranks, choose, **options):
    """Run the stream on the ranks. `choose(i, loads)` routes the i-th request sent; for the options see the class."""
    ReferenceFleet(requests, ranks, choose, **options).run()


def tick(seconds):
    return round(float(seconds) * TICKS_PER_S)


class ReferenceFleet:
    """Time goes from event to event.

    `route(i, request, attempt, up, loads)`, where given, chooses among the ranks `up`; `outages` holds an iterator of
    (dies, back) for each rank, `fresh()` makes a rank, `place` puts a sequence into the queue.
    """

    def __init__(
        self, requests, ranks, choose, *, route=None, failures=None, outages=(), fresh=None, place=list.append
    ):
        n = len(requests)
        self.requests, self.ranks, self.choose, self.route = requests, ranks, choose, route
        self.failures, self.outages, self.fresh, self.place = failures, outages, fresh, place
        self.log = ranks[0].log
        self.log |= {"sent": [-1] * n, "cancelled": [-1] * n, "lost": [-1] * n, "retries": [0] * n, "wasted": [0] * n}
        self.after = [-1] * n if requests.after is None else requests.after.tolist()
        self.closed = requests.concurrency
        self.alive = set(range(len(ranks)))
        self.loads = [0] * len(ranks)
        self.routed, self.left, self.next = 0, n, min(self.closed, n)
        self.kept = {}  # tokens out of requests between two ranks
        self.where = {}  # the rank that holds a request
        self.stranded = []
        self.leaving = []
        self.freed = []
        self.backs = {}
        self.agenda = []  # (tick, 0 dies or comes back, 1 gives up, 2 arrives, 3 arrives later, number)

    def run(self):
        self.open()
        now = 0
        while True:
            while self.agenda and self.agenda[0][0] == now:
                _, kind, number = heappop(self.agenda)
                (self.down_or_up, self.give_up, self.send, self.send)[kind](number, now)
            self.end_steps(now)
            for request in sorted(self.freed):
                self.send(request, now)
            self.freed.clear()
            for i, rank in enumerate(self.ranks):
                if rank.end is None and i in self.alive:
                    rank.start_step(now)
            times = [rank.end for rank in self.ranks if rank.end is not None] + [entry[0] for entry in self.agenda[:1]]
            if not times:
                return
            now = min(times)

    def open(self):
        if self.closed:
            for request in range(self.next):
                self.send(request, 0)
        else:
            arrivals = [tick(t) for t in self.requests.arrival_s.tolist()]
            for request in range(len(self.requests)):
                if self.after[request] < 0:
                    heappush(self.agenda, (arrivals[request], 2, request))
        for number in range(len(self.outages)):
            self.schedule(number)

    def send(self, request, now):
        log, requests = self.log, self.requests
        if log["sent"][request] < 0:
            log["sent"][request] = now
            if requests.cancel_s is not None and np.isfinite(requests.cancel_s[request]):
                heappush(self.agenda, (now + max(1, tick(requests.cancel_s[request])), 1, request))
        elif log["cancelled"][request] >= 0:
            return
        if not self.entrances():
            self.stranded.append(request)
            return
        number = self.routed_to(request)
        self.routed += 1
        self.loads[number] += 1
        self.where[request] = number
        self.ranks[number].take(self.arrival(request, self.kept.pop(request, 0)), self.place)

    def arrival(self, request, emitted):
        prompt, output = (int(column[request]) for column in (self.requests.prompt_tokens, self.requests.output_tokens))
        return Seq(request, prompt, output, emitted=emitted, target=prompt + emitted)

    def entrances(self):
        return sorted(self.alive)

    def routed_to(self, request):
        up = self.entrances()
        loads = [self.loads[i] for i in up]
        if self.route is None:
            return up[self.choose(self.routed, loads)]
        return up[self.route(self.routed, request, self.log["retries"][request], [self.ranks[i] for i in up], loads)]

    def ended(self, request, now):
        self.left -= 1
        self.where.pop(request, None)
        for follower in [i for i in range(len(self.requests)) if self.after[i] == request]:
            think = tick(self.requests.think_s[follower])
            if think:
                heappush(self.agenda, (now + think, 3, follower))
            else:
                self.freed.append(follower)
        if self.closed and self.next < len(self.requests):
            self.freed.append(self.next)
            self.next += 1

    def give_up(self, request, now):
        log = self.log
        if log["finish"][request] >= 0 or log["lost"][request] >= 0:
            return
        log["cancelled"][request] = now
        if request in self.where:
            number = self.where[request]
            waiting = [s for s in self.ranks[number].waiting if s.request == request]
            if waiting:
                self.ranks[number].waiting.remove(waiting[0])
                self.loads[number] -= 1
                log["wasted"][request] += waiting[0].emitted
            else:
                self.leaving.append((number, request))
        else:
            log["wasted"][request] += self.kept.pop(request, 0)
            if request in self.stranded:
                self.stranded.remove(request)
        self.ended(request, now)

    def die(self, number, now):
        log = self.log
        self.alive.remove(number)
        rank, self.ranks[number] = self.ranks[number], self.fresh_rank(number)
        log["steps"] -= sum(part.end is not None for part in rank.parts)
        self.loads[number] = 0
        self.leaving = [entry for entry in self.leaving if entry[0] != number]
        for seq in sorted(rank.waiting + [s for s in rank.running if not s.gone], key=lambda s: s.request):
            self.give_back(seq, now)

    def fresh_rank(self, number):
        return self.fresh()

    def give_back(self, seq, now):
        """`seq` was in a rank that dies now."""
        log, request = self.log, seq.request
        if log["cancelled"][request] >= 0:
            log["wasted"][request] += seq.emitted
            return
        del self.where[request]
        again = log["retries"][request] < self.failures.most_retries
        if again and self.failures.keep_tokens:
            self.kept[request] = seq.emitted
        else:
            log["wasted"][request] += seq.emitted
        if again:
            log["retries"][request] += 1
            heappush(self.agenda, (now + tick(self.failures.retry_after_s), 3, request))
        else:
            log["lost"][request] = now
            self.ended(request, now)

    def down_or_up(self, number, now):
        if number in self.alive:
            if not self.left:
                return
            self.die(number, now)
            if self.backs[number] is not None:
                heappush(self.agenda, (self.backs[number], 0, number))
            return
        self.alive.add(number)
        for request in self.stranded:
            heappush(self.agenda, (now, 3, request))
        self.stranded.clear()
        self.schedule(number)

    def schedule(self, number):
        dies, self.backs[number] = next(self.outages[number], (None, None))
        if dies is not None:
            heappush(self.agenda, (dies, 0, number))

    def end_steps(self, now):
        for i, rank in enumerate(self.ranks):
            if rank.end == now:
                self.end_step(i, rank, now)

    def end_step(self, i, rank, now):
        before = list(rank.running)
        rank.end_step()
        rank.end = None
        over = [s.request for s in before if self.log["finish"][s.request] == now and self.where.get(s.request) == i]
        for seq in before:
            if (i, seq.request) in self.leaving:
                self.leave(i, rank, seq)
        self.loads[i] -= len(over)
        for request in over:
            self.ended(request, now)

    def leave(self, number, rank, seq):
        """The client of `seq` gave up during the step that has just ended."""
        log = self.log
        self.leaving.remove((number, seq.request))
        if seq in rank.running:
            rank.let_go(seq, 0 if seq.gone else seq.cached)
        if log["first"][seq.request] >= log["cancelled"][seq.request]:
            log["first"][seq.request] = -1
        log["finish"][seq.request] = -1
        log["wasted"][seq.request] += seq.emitted
        self.loads[number] -= 1
