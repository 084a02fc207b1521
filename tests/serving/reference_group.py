"""Reference ranks in lockstep: every step of all of them ends when the slowest is done."""

from __future__ import annotations

from sim.cost.lockstep import IDLE, RankLoad
from tests.serving.reference_rank import ReferenceRank


class LockstepRank(ReferenceRank):
    """A rank that says what it does instead of how long that takes."""

    load: RankLoad = IDLE
    context: int = 0

    def price(self, decoders, chunks):
        wider = ()
        if self.ragged and decoders:
            drafts = [self.round_of(s)[0] for s in decoders]
            most = self.own.most_drafts if self.own is not None else self.drafts
            wider = tuple(sum(d >= j for d in drafts) for j in range(1, most + 1))
        pairs = sum(q * s.done + q * (q + 1) // 2 for s, q in chunks)
        completed = sum(s.done + q == s.target for s, q in chunks)
        moments = (len(chunks), sum(q for _, q in chunks), sum(s.done for s, _ in chunks), pairs, completed)
        self.load = RankLoad(len(decoders), self.drafts, wider, moments)
        self.context = sum(s.cached for s in decoders)
        return 0


class ReferenceGroup:
    """Looks like one rank to the reference fleet."""

    def __init__(self, ranks, prices):
        self.ranks, self.parts, self.prices = ranks, ranks, prices
        self.log = ranks[0].log
        self.end = None

    @property
    def running(self):
        return [seq for rank in self.ranks for seq in rank.running]

    @property
    def waiting(self):
        return Queue(self)

    def start_step(self, now):
        for rank in self.ranks:
            rank.start_step(now)
        busy = [rank for rank in self.ranks if rank.plan is not None]
        self.end = None
        if busy:
            loads = [IDLE if rank.plan is None else rank.load for rank in self.ranks]
            self.end = now + self.prices.step(loads, [0 if rank.plan is None else rank.context for rank in self.ranks])
            for rank in busy:
                rank.end = self.end

    def end_step(self):
        for rank in self.ranks:
            if rank.plan is not None:
                rank.end_step()
                rank.plan = rank.end = None

    def let_go(self, seq, tokens):
        next(rank for rank in self.ranks if seq in rank.running).let_go(seq, tokens)

    def take(self, seq, place):
        """vLLM's rule."""
        score = [4 * len(rank.waiting) + sum(not s.gone for s in rank.running) for rank in self.ranks]
        self.ranks[score.index(min(score))].take(seq, place)


class Queue:
    """The queues of a group's ranks as one."""

    def __init__(self, group):
        self.group = group

    def __iter__(self):
        return (seq for rank in self.group.ranks for seq in rank.waiting)

    def __add__(self, other):
        return [*self, *other]

    def remove(self, seq):
        next(rank for rank in self.group.ranks if seq in rank.waiting).waiting.remove(seq)
