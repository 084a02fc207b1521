"""Reference ranks that only prefill, and such that only decode; `reference_pools` puts them on a clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.serving.reference_rank import ReferenceRank


@dataclass
class Sender(ReferenceRank):
    """Prefills; what it has computed keeps its blocks until it is sent."""

    sending: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    begun: list = field(default_factory=list)  # those whose prefill the step under way completes

    def shared(self):
        """Blocks that count once too often, less those that wait to be sent."""
        held = [i for s in self.running + self.sending for i in s.ids]
        return len(held) - len(set(held)) - sum(self.blocks(s.done) for s in self.sending)

    def in_use(self):
        return {i for s in self.running + self.sending for i in s.ids}

    def free(self, request):
        """Nobody needs its blocks any more: with the next plan they are free."""
        self.sent.append(request)
        if self.end is None:
            self.free_sent()

    def free_sent(self):
        for request in self.sent:
            seq = next(s for s in self.sending if s.request == request)
            self.fill(seq, seq.done)
            self.sending.remove(seq)
            self.cached += [i for i in reversed(seq.ids) if i not in self.in_use()]
        self.sent.clear()

    def start_step(self, now):
        self.free_sent()
        super().start_step(now)

    def planned(self, preempted, chunks):
        self.begun = [s for s, q in chunks if s.done + q == s.target]

    def end_step(self):
        _, chunks, _ = self.plan
        self.steps += 1
        for seq, q in chunks:
            seq.done += q
            self.fill(seq, seq.done)
            if seq.done == seq.target:
                seq.emitted += 1
                if seq.emitted == 1:
                    self.log["first"][seq.request] = self.end
                self.running.remove(seq)
                self.sending.append(seq)


@dataclass
class Receiver(ReferenceRank):
    """Decodes what has been sent to it."""

    incoming: list = field(default_factory=list)
    coming: dict = field(default_factory=dict)
    received: list = field(default_factory=list)
    ready: list = field(default_factory=list)  # those whose blocks have just been set aside
    recompute: object = None  # ticks of the draft's KV for contexts of so many tokens
    joined: list = field(default_factory=list)

    def __post_init__(self):
        self.widest = 1 + self.drafts

    def blocks_of(self, seq):
        return self.blocks(seq.target + self.widest)

    def shared(self):
        return -sum(self.blocks_of(s) for s in (*self.coming.values(), *self.received))

    def everyone(self):
        return self.waiting + self.running + self.incoming + list(self.coming.values()) + self.received

    def arrive(self, request):
        self.take(self.coming.pop(request), lambda _, seq: self.received.append(seq))

    def hand(self, seq):
        self.take(seq, lambda _, taken: self.incoming.append(taken))

    def forget(self, seq):
        self.coming.pop(seq.request, None)
        for queue in (self.incoming, self.received):
            if seq in queue:
                queue.remove(seq)

    def slots(self):
        return len(self.running) + self.holding()[0]

    def start_step(self, now):
        while self.received and self.received[0].seen <= self.steps and self.slots() < self.max_seqs:
            decoding = sum(s.decoding for s in self.running)  # a prompt under way stays the last
            self.running.insert(decoding, self.received.pop(0))
            self.joined.append(self.running[decoding].target)
        super().start_step(now)
        if self.end is not None and self.recompute is not None and self.joined:
            self.end += self.recompute(self.joined)
            self.joined = []

    def planned(self, preempted, chunks):
        prefilling = [s for s, _ in chunks]
        used = sum(self.need(s) for s in self.running if s not in prefilling) + self.holding()[1] - self.shared()
        used += sum(self.blocks(s.done + q) for s, q in chunks)
        while not preempted and not self.waiting and self.incoming and self.slots() < self.max_seqs:
            seq = self.incoming[0]
            if seq.seen > self.steps or used + self.blocks_of(seq) > self.kv.blocks:
                return
            self.incoming.pop(0)
            used += self.blocks_of(seq)
            self.coming[seq.request] = seq
            self.ready.append(seq.request)

    def try_again(self, preempted):
        pending = self.incoming + self.received
        unseen = any(s.seen > self.steps for s in pending)
        return super().try_again(preempted) or (pending and (preempted or self.held or unseen))
