"""A rank with one event per step and one loop per sequence; `reference` puts several on a clock.

Written from the words of docs/architecture.md, not from sim.serving: no ledger, no paths, no blocks of steps, no
SimPy. It shares the prices and the draws with it, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sim.draws import derive, key
from tests.serving.reference_pool import ReferencePool


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
    most: int = 0  # blocks that a round needed so far; they stay its own until it is preempted
    ids: list = field(default_factory=list)  # blocks it holds by content

    @property
    def decoding(self):
        return self.done == self.target

    @property
    def cached(self):
        return self.prompt + self.emitted - 1 if self.decoding else self.done


@dataclass
class ReferenceRank(ReferencePool):
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

    @property
    def parts(self):
        return [self]

    def take(self, seq, place):
        seq.seen = self.steps
        if self.end is not None:
            seq.seen += 1 + self.ahead
        elif self.running:
            seq.seen += self.ahead
        place(self.waiting, seq)

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
            blocks = self.blocks(seq.cached + self.width(seq))
            return max(blocks, seq.most) if self.ragged else blocks
        return self.blocks(seq.done + min(self.leftover(), seq.target - seq.done))

    def leftover(self):
        if not self.mixes:
            return self.budget
        return self.budget - sum(1 + self.drafts for s in self.running if s.decoding)

    def start_step(self, now):
        if self.chooser is not None and any(s.decoding for s in self.running):
            decoders = [s for s in self.running if s.decoding]
            self.drafts = self.chooser.choose(len(decoders), sum(s.cached for s in decoders)).drafts
        preempted = self.preempt()
        self.evict(self.used() - self.holding()[1])
        decoders = [s for s in self.running if s.decoding]
        chunks = self.prefills(preempted)
        if chunks:
            prefilling = [s for s, _ in chunks]
            own = sum(self.need(s) for s in self.running if s not in prefilling)
            own += sum(self.blocks(s.done + q) for s, q in chunks)
            self.evict(own - self.shared())
        self.planned(preempted, chunks)
        again = self.try_again(preempted)
        self.held = []
        if not decoders and not chunks:
            self.decoded = False
            self.end = self.plan = None
            if again:
                self.steps += 1
                self.start_step(now)
            return
        if chunks and not self.mixes:
            decoders = []
        self.end = now + self.price(decoders, chunks)
        self.log["steps"] += 1
        self.plan = (decoders, chunks, now)
        for seq in decoders:
            seq.most = self.need(seq)

    def planned(self, preempted, chunks):
        """For ranks that do more then."""

    def try_again(self, preempted):
        """Whether the next plan may do what this one could not, though nothing happens meanwhile."""
        unseen = any(s.seen > self.steps for s in self.waiting)
        return self.waiting and (preempted or self.held or self.decoded or unseen)

    def preempt(self):
        """Until the coming step fits; returns whether anybody had to go."""
        preempted = False
        while sum(self.need(s) for s in self.running) + self.holding()[1] - self.shared() > self.kv.blocks:
            seq = self.running[-1]
            preempted = True
            if seq.gone:
                self.running.pop()
                continue
            self.let_go(seq, seq.cached)
            seq.target, seq.done, seq.state, seq.most = seq.prompt + seq.emitted, 0, None, 0
            self.waiting.insert(0, seq)
            self.log["preemptions"][seq.request] += 1
        return preempted

    def prefills(self, preempted):
        """Chunks of the coming step, of a partial prefill and of those admitted now."""
        left = self.leftover()
        free = self.kv.blocks - sum(self.need(s) for s in self.running) - self.holding()[1] + self.shared()
        in_use = self.in_use()
        chunks = []
        for seq in self.running:
            if not seq.decoding:
                chunks.append((seq, min(left, seq.target - seq.done)))
                left -= chunks[-1][1]
        closed = preempted or (self.static and self.decoded)
        joining = []
        while not closed and left > 0 and len(self.running) + len(joining) + self.holding()[0] < self.max_seqs:
            admitted = [s for s, _, _ in joining]
            seq = next((s for s in self.waiting if s.seen <= self.steps and s not in admitted), None)
            if seq is None:
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
        return chunks

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
            return self.prices.ragged_mixed(wider, len(decoders), context, moments)
        return self.prices.mixed(self.drafts, len(decoders), context, moments)

    def end_step(self):
        decoders, chunks, started = self.plan
        self.steps += 1
        if not chunks:
            self.evict(sum(self.need(s) for s in decoders) - self.shared())
        self.end_rounds(decoders, started)
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

    def end_rounds(self, decoders, started):
        over, emitted = [], 0
        for seq in decoders:
            if seq.gone:
                self.running.remove(seq)
                continue
            emitted += self.end_round(seq)
            if seq.emitted == seq.output:
                over.append(seq)
        if self.chooser is not None and decoders:
            self.chooser.observe(1, emitted, self.end - started)
        for seq in over:
            self.log["finish"][seq.request] = self.end
            place = self.running.index(seq)
            self.let_go(seq, seq.prompt + seq.output - 1)
            if self.ahead and self.trailing:
                seq.gone, seq.kept = True, self.drafts
                self.running.insert(place, seq)
            elif self.ahead:
                self.held.append(self.blocks(seq.prompt + seq.output - 1))
        if decoders:
            self.decoded = any(s.decoding for s in self.running)

    def end_round(self, seq):
        """Returns how many tokens came out of it."""
        drafts, depth = self.round_of(seq)
        if self.acceptance is not None:
            self.log["drafted"][seq.request] += drafts
            self.log["accepted"][seq.request] += depth
            if self.own is not None:
                seq.state = self.own.next(seq.state, np.array([drafts]), np.array([depth]))
        self.log["rounds"][seq.request] += 1
        before = seq.emitted
        seq.emitted = min(before + depth + 1, seq.output)
        return seq.emitted - before

    @property
    def trailing(self):
        return self.acceptance is not None
