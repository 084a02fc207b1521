"""One event per step, one loop per sequence: the slow simulator that the fast one must equal to the bit.

Written from the words of docs/architecture.md, not from sim.serving: no ledger, no paths, no blocks of steps, no
SimPy. It shares the prices and the draws with it, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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

    def leftover(self):
        if not self.mixes:
            return self.budget
        return self.budget - sum(1 + self.drafts for s in self.running if s.decoding)

    def start_step(self, now):
        if self.chooser is not None and any(s.decoding for s in self.running):
            decoders = [s for s in self.running if s.decoding]
            self.drafts = self.chooser.choose(len(decoders), sum(s.cached for s in decoders)).drafts
        preempted = False
        while sum(self.need(s) for s in self.running) + self.holding()[1] > self.kv.blocks:
            seq = self.running.pop()
            preempted = True
            if seq.gone:
                continue
            seq.target, seq.done, seq.state = seq.prompt + seq.emitted, 0, None
            self.waiting.insert(0, seq)
            self.log["preemptions"][seq.request] += 1
        left = self.leftover()
        free = self.kv.blocks - sum(self.need(s) for s in self.running) - self.holding()[1]
        decoders = [s for s in self.running if s.decoding]
        chunks = []
        for seq in self.running:
            if not seq.decoding:
                chunks.append((seq, min(left, seq.target - seq.done)))
                left -= chunks[-1][1]
        closed = self.static and self.decoded
        while not preempted and not closed and left > 0 and len(self.running) + self.holding()[0] < self.max_seqs:
            seq = next((s for s in self.waiting if s.seen <= self.steps), None)
            if seq is None:
                break
            take = min(left, seq.target)
            if self.blocks(seq.target if self.whole else take) > free:
                break
            free -= self.blocks(take)
            left -= take
            self.waiting.remove(seq)
            self.running.append(seq)
            chunks.append((seq, take))
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
            else:
                self.running.remove(seq)
                if self.ahead:
                    self.held.append(self.blocks(seq.prompt + seq.output - 1))
        if decoders:
            self.decoded = any(s.decoding for s in self.running)
        for seq, q in chunks:
            seq.done += q
            if seq.done == seq.target:
                seq.emitted += 1
                if seq.emitted == 1:
                    self.log["first"][seq.request] = self.end
                if seq.emitted == seq.output:
                    self.log["finish"][seq.request] = self.end
                    self.running.remove(seq)
                    finished += 1
        return finished

    @property
    def trailing(self):
        return self.acceptance is not None


def simulate(requests, ranks, choose):
    """Run the stream; `choose(i, loads)` routes the i-th request sent. Time goes from event to event."""
    n = len(requests)
    arrivals = [round(t * TICKS_PER_S) for t in requests.arrival_s.tolist()]
    loads = [0] * len(ranks)
    sent = 0
    closed = requests.concurrency
    allowed = min(closed, n) if closed else n

    def send(request):
        number = choose(request, loads)
        loads[number] += 1
        prompt, output = int(requests.prompt_tokens[request]), int(requests.output_tokens[request])
        rank = ranks[number]
        seen = rank.steps
        if rank.end is not None:
            seen += 1 + rank.ahead
        elif rank.running:
            seen += rank.ahead
        rank.waiting.append(Seq(request, prompt, output, target=prompt, seen=seen))

    while True:
        times = [rank.end for rank in ranks if rank.end is not None]
        if sent < allowed:
            times.append(0 if closed else arrivals[sent])
        if not times:
            return
        now = min(times)
        while not closed and sent < n and arrivals[sent] == now:
            send(sent)
            sent += 1
        freed = 0
        for i, rank in enumerate(ranks):
            if rank.end == now:
                finished = rank.end_step()
                loads[i] -= finished
                freed += finished
                rank.end = None
        if closed:
            allowed = min(allowed + freed, n) if now or freed else allowed
            while sent < allowed:
                send(sent)
                sent += 1
        for rank in ranks:
            if rank.end is None:
                rank.start_step(now)
