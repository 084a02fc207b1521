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
    waiting: list = field(default_factory=list)
    running: list = field(default_factory=list)
    end: int | None = None
    plan: tuple | None = None

    def blocks(self, tokens):
        return -(-(tokens + self.kv.lookahead_tokens) // self.kv.block_tokens)

    def need(self, seq):
        """Blocks of a running sequence after the coming step."""
        if seq.decoding:
            return self.blocks(seq.cached + 1 + self.drafts)
        return self.blocks(seq.done + min(self.leftover(), seq.target - seq.done))

    def leftover(self):
        return self.budget - sum(1 + self.drafts for s in self.running if s.decoding)

    def start_step(self, now):
        preempted = False
        while sum(self.need(s) for s in self.running) > self.kv.blocks:
            seq = self.running.pop()
            seq.target, seq.done = seq.prompt + seq.emitted, 0
            self.waiting.insert(0, seq)
            self.log["preemptions"][seq.request] += 1
            preempted = True
        left = self.leftover()
        free = self.kv.blocks - sum(self.need(s) for s in self.running)
        decoders = [s for s in self.running if s.decoding]
        chunks = []
        for seq in self.running:
            if not seq.decoding:
                chunks.append((seq, min(left, seq.target - seq.done)))
                left -= chunks[-1][1]
        while not preempted and self.waiting and left > 0 and len(self.running) < self.max_seqs:
            seq = self.waiting[0]
            take = min(left, seq.target)
            if self.blocks(seq.target if self.whole else take) > free:
                break
            free -= self.blocks(take)
            left -= take
            self.running.append(self.waiting.pop(0))
            chunks.append((seq, take))
        if not decoders and not chunks:
            self.end = self.plan = None
            return
        context = sum(s.cached for s in decoders)
        if chunks:
            pairs = sum(q * s.done + q * (q + 1) // 2 for s, q in chunks)
            completed = sum(s.done + q == s.target for s, q in chunks)
            history = sum(s.done for s, _ in chunks)
            ticks = self.prices.mixed(
                len(decoders), context, len(chunks), sum(q for _, q in chunks), history, pairs, completed
            )
        else:
            ticks = int(self.prices.decode(len(decoders)).durations(np.array([context]))[0])
        self.log["steps"] += 1
        self.end, self.plan = now + ticks, (decoders, chunks)

    def end_step(self):
        """Returns the number of finished requests."""
        decoders, chunks = self.plan
        gone = []
        for seq in decoders:
            depth = 0
            if self.drafts:
                keys = derive(key(self.seed, "acceptance"), seq.request)
                depth = int(self.acceptance.depths(keys, np.array(seq.emitted), self.drafts))
                self.log["rounds"][seq.request] += 1
                self.log["accepted"][seq.request] += depth
            seq.emitted = min(seq.emitted + depth + 1, seq.output)
            if seq.emitted == seq.output:
                gone.append(seq)
        for seq, q in chunks:
            seq.done += q
            if seq.done == seq.target:
                seq.emitted += 1
                if seq.emitted == 1:
                    self.log["first"][seq.request] = self.end
                if seq.emitted == seq.output:
                    gone.append(seq)
        for seq in gone:
            self.log["finish"][seq.request] = self.end
            self.running.remove(seq)
        return len(gone)


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
        ranks[number].waiting.append(Seq(request, prompt, output, target=prompt))

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
