"""One event per step, one loop per sequence: the slow simulator that the fast one must equal to the bit.

Written from the words of docs/architecture.md, not from sim.serving: no ledger, no paths, no blocks of steps, no
SimPy. It shares the prices and the draws with it, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from sim.draws import derive, key

TICKS_PER_S = 10**12


@dataclass
class Seq:
    request: int
    prompt: int
    output: int
    emitted: int = 0
    target: int = 0  # tokens to prefill
    done: int = 0  # tokens prefilled
    seen: int = 0  # first step whose planning knows of it
    state: object = None  # of its own draft length
    gone: bool = False  # finished, but planned for one more step
    kept: int = 0  # the draft length of that step
    ids: list = field(default_factory=list)  # blocks it holds by content

    @property
    def decoding(self):
        return self.done == self.target

    @property
    def cached(self):
        return self.prompt + self.emitted - 1 if self.decoding else self.done


@dataclass
class ReferenceRank:
    prices: object
    acceptance: object
    drafts: int
    kv: object
    max_seqs: int
    budget: int
    whole: bool
    seed: int
    log: dict
    chooser: object = None
    own: object = None
    offers: object = None
    ahead: int = 0
    mixes: bool = True
    static: bool = False
    block_ids: object = None
    cached: list = field(default_factory=list)  # content of free blocks, next to go first
    steps: int = 0
    held: list = field(default_factory=list)
    decoded: bool = False
    waiting: list = field(default_factory=list)
    running: list = field(default_factory=list)
    end: int | None = None
    plan: tuple | None = None

    def blocks(self, tokens):
        return -(-(tokens + self.kv.lookahead_tokens) // self.kv.block_tokens)

    @property
    def ragged(self):
        return self.own is not None or self.offers is not None

    def key(self, seq):
        return derive(key(self.seed, "acceptance"), seq.request)

    def round_of(self, seq):
        """Drafts of the sequence's coming round, and how many of them are accepted."""
        at = np.array(seq.emitted)
        if seq.gone:
            return (seq.kept if self.offers is None else int(self.offers(self.key(seq), at, self.drafts))), 0
        if not self.drafts:
            return 0, 0
        most = self.own.most_drafts if self.own is not None else self.drafts
        depth = int(self.acceptance.depths(self.key(seq), at, most))
        drafts = self.drafts
        if self.own is not None:
            if seq.state is None:
                seq.state = self.own.first(1)
            drafts = int(self.own.drafts(seq.state, np.array([depth]))[0])
        if self.offers is not None:
            drafts = int(self.offers(self.key(seq), at, self.drafts))
        return drafts, min(depth, drafts)

    def width(self, seq):
        return 1 + (self.round_of(seq)[0] if self.ragged or seq.gone else self.drafts)

    def need(self, seq):
        """Blocks of a running sequence after the coming step."""
        if seq.decoding:
            return self.blocks(seq.cached + self.width(seq))
        return self.blocks(seq.done + min(self.leftover(), seq.target - seq.done))

    def holding(self):
        """Sequences that finished too late for this step's plan: (sequences, blocks)."""
        return (len(self.held), sum(self.held))

    def shared(self):
        """Blocks held by several sequences, counted once too often for each further one."""
        held = [i for s in self.running for i in s.ids]
        return len(held) - len(set(held))

    def in_use(self):
        return {i for s in self.running for i in s.ids}

    def used(self):
        """Blocks of the coming step, a partial prefill as far as it has come."""
        own = sum(self.need(s) if s.decoding else self.blocks(s.done) for s in self.running)
        return own + self.holding()[1] - self.shared()

    def evict(self, used):
        while self.cached and len(self.cached) > max(0, self.kv.blocks - used):
            self.cached.pop(0)

    def hits(self, seq):
        if self.block_ids is None:
            return 0
        there, found = self.in_use() | set(self.cached), 0
        whole = (seq.target - 1) // self.kv.block_tokens
        for i in self.block_ids.of(seq.request, whole):
            if i not in there:
                break
            found += 1
        return found

    def fill(self, seq, tokens):
        """Blocks of the first tokens become known, up to the first that a running sequence has."""
        if self.block_ids is None:
            return
        for i in self.block_ids.of(seq.request, tokens // self.kv.block_tokens)[len(seq.ids) :]:
            if i in self.in_use():
                break
            if i in self.cached:
                self.cached.remove(i)
            seq.ids.append(i)

    def let_go(self, seq, tokens):
        """`seq` leaves the running ones and its blocks stay known, its last first in line to go."""
        if self.block_ids is None:
            self.running.remove(seq)
            return
        self.fill(seq, tokens)
        self.running.remove(seq)
        for i in reversed(seq.ids):
            if i not in self.in_use():
                self.cached.append(i)
        seq.ids = []

    def leftover(self):
        if not self.mixes:
            return self.budget
        return self.budget - sum(1 + self.drafts for s in self.running if s.decoding)

    def start_step(self, now):
        if self.chooser is not None and any(s.decoding for s in self.running):
            decoders = [s for s in self.running if s.decoding]
            self.drafts = self.chooser.choose(len(decoders), sum(s.cached for s in decoders)).drafts
        preempted = False
        while sum(self.need(s) for s in self.running) + self.holding()[1] - self.shared() > self.kv.blocks:
            seq = self.running[-1]
            preempted = True
            if seq.gone:
                self.running.pop()
                continue
            self.let_go(seq, seq.cached)
            seq.target, seq.done, seq.state = seq.prompt + seq.emitted, 0, None
            self.waiting.insert(0, seq)
            self.log["preemptions"][seq.request] += 1
        self.evict(self.used() - self.holding()[1])
        left = self.leftover()
        free = self.kv.blocks - sum(self.need(s) for s in self.running) - self.holding()[1] + self.shared()
        in_use = self.in_use()
        decoders = [s for s in self.running if s.decoding]
        chunks = []
        for seq in self.running:
            if not seq.decoding:
                chunks.append((seq, min(left, seq.target - seq.done)))
                left -= chunks[-1][1]
        closed = self.static and self.decoded
        joining = []
        while not preempted and not closed and left > 0 and len(self.running) + self.holding()[0] < self.max_seqs:
            admitted = [s for s, _, _ in joining]
            seq = next((s for s in self.waiting if s.seen <= self.steps and s not in admitted), None)
            if seq is None or len(self.running) + len(joining) + self.holding()[0] >= self.max_seqs:
                break
            hit = self.hits(seq)
            hit_tokens = hit * self.kv.block_tokens
            shared = sum(i in in_use for i in self.block_ids.of(seq.request, hit)) if hit else 0
            take = min(left, seq.target - hit_tokens)
            if self.blocks(seq.target if self.whole else hit_tokens + take) - shared > free:
                break
            free -= self.blocks(hit_tokens + take) - shared
            left -= take
            joining.append((seq, take, hit_tokens))
        for seq, take, hit_tokens in joining:
            self.waiting.remove(seq)
            self.running.append(seq)
            seq.done = hit_tokens
            if hit_tokens:
                seq.ids = self.block_ids.of(seq.request, hit_tokens // self.kv.block_tokens)
                self.cached = [i for i in self.cached if i not in seq.ids]
            chunks.append((seq, take))
        if chunks:
            prefilling = [s for s, _ in chunks]
            own = sum(self.need(s) for s in self.running if s not in prefilling)
            own += sum(self.blocks(s.done + q) for s, q in chunks)
            self.evict(own - self.shared())
        self.held = []
        if not decoders and not chunks:
            self.decoded = False
            self.end = self.plan = None
            if self.waiting:
                self.steps += 1
                self.start_step(now)
            return
        if chunks and not self.mixes:
            decoders = []
        self.end = now + self.price(decoders, chunks)
        self.log["steps"] += 1
        self.plan = (decoders, chunks, now)

    def price(self, decoders, chunks):
        context = sum(s.cached for s in decoders)
        wider = ()
        if self.ragged and decoders:
            drafts = [self.round_of(s)[0] for s in decoders]
            most = self.own.most_drafts if self.own is not None else self.drafts
            wider = tuple(sum(d >= j for d in drafts) for j in range(1, most + 1))
        if not chunks:
            if self.ragged:
                return self.prices.ragged(len(decoders), wider, context)
            return int(self.prices.decode(len(decoders), self.drafts).durations(np.array([context]))[0])
        pairs = sum(q * s.done + q * (q + 1) // 2 for s, q in chunks)
        completed = sum(s.done + q == s.target for s, q in chunks)
        moments = (len(chunks), sum(q for _, q in chunks), sum(s.done for s, _ in chunks), pairs, completed)
        if self.ragged:
            return self.prices.ragged_mixed(wider, len(decoders), context, *moments)
        return self.prices.mixed(self.drafts, len(decoders), context, *moments)

    def end_step(self):
        """Returns the number of finished requests."""
        decoders, chunks, started = self.plan
        self.steps += 1
        if not chunks:
            self.evict(sum(self.need(s) for s in decoders) - self.shared())
        over = []
        emitted = 0
        for seq in decoders:
            if seq.gone:
                self.running.remove(seq)
                continue
            drafts, depth = self.round_of(seq)
            if self.acceptance is not None:
                self.log["drafted"][seq.request] += drafts
                self.log["accepted"][seq.request] += depth
                if self.own is not None:
                    seq.state = self.own.next(seq.state, np.array([drafts]), np.array([depth]))
            self.log["rounds"][seq.request] += 1
            emitted += min(depth + 1, seq.output - seq.emitted)
            seq.emitted = min(seq.emitted + depth + 1, seq.output)
            if seq.emitted == seq.output:
                over.append(seq)
        if self.chooser is not None and decoders:
            self.chooser.observe(1, emitted, self.end - started)
        finished = len(over)
        for seq in over:
            self.log["finish"][seq.request] = self.end
            if self.ahead and self.trailing:
                seq.gone, seq.kept = True, self.drafts
                place = self.running.index(seq)
                self.let_go(seq, seq.prompt + seq.output - 1)
                self.running.insert(place, seq)
            else:
                self.let_go(seq, seq.prompt + seq.output - 1)
                if self.ahead:
                    self.held.append(self.blocks(seq.prompt + seq.output - 1))
        if decoders:
            self.decoded = any(s.decoding for s in self.running)
        for seq, q in chunks:
            seq.done += q
            self.fill(seq, seq.done)
            if seq.done == seq.target:
                seq.emitted += 1
                if seq.emitted == 1:
                    self.log["first"][seq.request] = self.end
                if seq.emitted == seq.output:
                    self.log["finish"][seq.request] = self.end
                    self.let_go(seq, seq.done)
                    finished += 1
        return finished

    @property
    def trailing(self):
        return self.acceptance is not None


def simulate(requests, ranks, choose, *, route=None, failures=None, outages=(), fresh=None, place=list.append):
    """Run the stream; time goes from event to event.

    `choose(i, loads)` routes the i-th request sent, or `route(i, request, attempt, up, loads)` among the ranks `up`.
    `outages` holds an iterator of (dies, back) for each rank, `fresh()` makes a rank, `place` puts into the queue.
    """
    n = len(requests)
    log = ranks[0].log
    log |= {"sent": [-1] * n, "cancelled": [-1] * n, "lost": [-1] * n, "retries": [0] * n, "wasted": [0] * n}
    after = [-1] * n if requests.after is None else requests.after.tolist()
    closed = requests.concurrency
    alive = set(range(len(ranks)))
    loads = [0] * len(ranks)
    state = {"routed": 0, "left": n, "next": min(closed, n)}
    kept = {}  # tokens out of requests between two ranks
    where = {}  # the rank that holds a request
    stranded = []
    leaving = []
    freed = []
    agenda = []  # (tick, 0 dies or comes back, 1 gives up, 2 arrives, 3 arrives later, number)

    def tick(seconds):
        return round(float(seconds) * TICKS_PER_S)

    def send(request, now):
        if log["sent"][request] < 0:
            log["sent"][request] = now
            if requests.cancel_s is not None and np.isfinite(requests.cancel_s[request]):
                heappush(agenda, (now + max(1, tick(requests.cancel_s[request])), 1, request))
        elif log["cancelled"][request] >= 0:
            return
        if not alive:
            stranded.append(request)
            return
        up = sorted(alive)
        if route is not None:
            number = route(
                state["routed"], request, log["retries"][request], [ranks[i] for i in up], [loads[i] for i in up]
            )
        else:
            number = choose(state["routed"], [loads[i] for i in up])
        number = up[number]
        state["routed"] += 1
        loads[number] += 1
        where[request] = number
        rank = ranks[number]
        seen = rank.steps
        if rank.end is not None:
            seen += 1 + rank.ahead
        elif rank.running:
            seen += rank.ahead
        prompt, output, emitted = (
            int(requests.prompt_tokens[request]),
            int(requests.output_tokens[request]),
            kept.pop(request, 0),
        )
        place(rank.waiting, Seq(request, prompt, output, emitted=emitted, target=prompt + emitted, seen=seen))

    def ended(request, now):
        state["left"] -= 1
        where.pop(request, None)
        for follower in [i for i in range(n) if after[i] == request]:
            think = tick(requests.think_s[follower])
            if think:
                heappush(agenda, (now + think, 3, follower))
            else:
                freed.append(follower)
        if closed and state["next"] < n:
            freed.append(state["next"])
            state["next"] += 1

    def give_up(request, now):
        if log["finish"][request] >= 0 or log["lost"][request] >= 0:
            return
        log["cancelled"][request] = now
        if request in where:
            number = where[request]
            waiting = [s for s in ranks[number].waiting if s.request == request]
            if waiting:
                ranks[number].waiting.remove(waiting[0])
                loads[number] -= 1
                log["wasted"][request] += waiting[0].emitted
            else:
                leaving.append((number, request))
        else:
            log["wasted"][request] += kept.pop(request, 0)
            if request in stranded:
                stranded.remove(request)
        ended(request, now)

    def die(number, now):
        alive.remove(number)
        rank, ranks[number] = ranks[number], fresh()
        log["steps"] -= rank.end is not None
        loads[number] = 0
        leaving[:] = [entry for entry in leaving if entry[0] != number]
        for seq in sorted(rank.waiting + [s for s in rank.running if not s.gone], key=lambda s: s.request):
            request = seq.request
            if log["cancelled"][request] >= 0:
                log["wasted"][request] += seq.emitted
                continue
            del where[request]
            again = log["retries"][request] < failures.most_retries
            if again and failures.keep_tokens:
                kept[request] = seq.emitted
            else:
                log["wasted"][request] += seq.emitted
            if again:
                log["retries"][request] += 1
                heappush(agenda, (now + tick(failures.retry_after_s), 3, request))
            else:
                log["lost"][request] = now
                ended(request, now)

    def down_or_up(number, now):
        if number in alive:
            if not state["left"]:
                return
            die(number, now)
            if backs[number] is not None:
                heappush(agenda, (backs[number], 0, number))
            return
        alive.add(number)
        for request in stranded:
            heappush(agenda, (now, 3, request))
        stranded.clear()
        schedule(number)

    backs = {}

    def schedule(number):
        dies, backs[number] = next(outages[number], (None, None))
        if dies is not None:
            heappush(agenda, (dies, 0, number))

    def end_steps(now):
        for i, rank in enumerate(ranks):
            if rank.end != now:
                continue
            before = list(rank.running)
            rank.end_step()
            rank.end = None
            over = [s.request for s in before if log["finish"][s.request] == now and where.get(s.request) == i]
            for seq in before:
                if (i, seq.request) in leaving:
                    leaving.remove((i, seq.request))
                    if seq in rank.running:
                        rank.let_go(seq, 0 if seq.gone else seq.cached)
                    if log["first"][seq.request] >= log["cancelled"][seq.request]:
                        log["first"][seq.request] = -1
                    log["finish"][seq.request] = -1
                    log["wasted"][seq.request] += seq.emitted
                    loads[i] -= 1
            loads[i] -= len(over)
            for request in over:
                ended(request, now)

    if closed:
        for request in range(state["next"]):
            send(request, 0)
    else:
        arrivals = [round(t * TICKS_PER_S) for t in requests.arrival_s.tolist()]
        for request in range(n):
            if after[request] < 0:
                heappush(agenda, (arrivals[request], 2, request))
    for number in range(len(outages)):
        schedule(number)
    now = 0
    while True:
        while agenda and agenda[0][0] == now:
            _, kind, number = heappop(agenda)
            (down_or_up, give_up, send, send)[kind](number, now)
        end_steps(now)
        for request in sorted(freed):
            send(request, now)
        freed.clear()
        for i, rank in enumerate(ranks):
            if rank.end is None and i in alive:
                rank.start_step(now)
        times = [rank.end for rank in ranks if rank.end is not None] + [entry[0] for entry in agenda[:1]]
        if not times:
            return
        now = min(times)
