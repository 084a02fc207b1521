"""Pipeline stages with one event per batch and one loop per sequence, from the words of sim.serving.pipeline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Seq:
    request: int
    prompt: int
    output: int
    emitted: int = 0
    target: int = 0
    done: int = 0  # prompt tokens in batches that are through or in flight
    lane: int = -1  # where it decodes, once its last chunk is planned
    decoding: bool = False


class ReferencePipeline:
    """Serves an open stream; times in ticks."""

    def __init__(self, requests, prices, stages, kv, max_seqs, budget):
        self.requests, self.prices, self.stages, self.kv = requests, prices, stages, kv
        self.max_seqs, self.budget = max_seqs, budget
        n = len(requests)
        self.first, self.finish, self.preemptions, self.batches = [-1] * n, [-1] * n, [0] * n, []
        self.waiting, self.running, self.flight = [], [], []
        self.free = [0] * stages

    def run(self):
        arrivals = [round(t * 10**12) for t in self.requests.arrival_s.tolist()]
        coming, now = 0, 0
        while True:
            while coming < len(arrivals) and (arrivals[coming] <= now or self.empty):
                now = max(now, arrivals[coming]) if self.empty else now
                if arrivals[coming] > now:
                    break
                self.waiting.append(Seq(coming, int(self.requests.prompt_tokens[coming]),
                                        int(self.requests.output_tokens[coming]),
                                        target=int(self.requests.prompt_tokens[coming])))  # fmt: skip
                coming += 1
            self.fill(now)
            if not self.flight:
                if coming == len(arrivals):
                    return self
                now = arrivals[coming]
                continue
            _, decoders, chunks, end = self.flight.pop(0)
            now = end
            self.through(decoders, chunks, now)

    @property
    def empty(self):
        return not self.flight and not self.running and not self.waiting

    def blocks(self, tokens):
        return -(-(tokens + self.kv.lookahead_tokens) // self.kv.block_tokens)

    def held(self, seq):
        """Blocks after the batch that it is in, or will be in next."""
        return self.blocks(seq.prompt + seq.emitted if seq.decoding else seq.done)

    def fill(self, now):
        while len(self.flight) < self.stages:
            busy = [entry[0] for entry in self.flight]
            lanes = [lane for lane in range(self.stages) if lane not in busy]
            lane = next((i for i in lanes if any(s.lane == i and s.decoding for s in self.running)), lanes[0])
            if not self.plan(lane, now):
                return

    def plan(self, lane, now):
        own = [s for s in self.running if s.lane == lane and s.decoding]
        flying = [s for entry in self.flight for s, _, _ in entry[2]]
        preempted = False

        def partial():
            return next((s for s in self.running if s.done < s.target), None)

        def needed():
            left, prompt = self.budget - len(own), partial()
            more = 0
            if prompt is not None:
                more = self.blocks(prompt.done + min(left, prompt.target - prompt.done)) - self.blocks(prompt.done)
            return sum(self.held(s) for s in self.running) + more

        while needed() > self.kv.blocks:
            prompt = partial()
            if prompt is not None and prompt not in flying:
                victim = prompt
            elif own:
                victim = own.pop()
            else:
                break
            preempted = True
            self.running.remove(victim)
            victim.target, victim.done, victim.decoding, victim.lane = victim.prompt + victim.emitted, 0, False, -1
            self.preemptions[victim.request] += 1
            self.waiting.insert(0, victim)
        chunks = [] if needed() > self.kv.blocks else self.chunks(len(own), partial(), preempted)
        if not own and not chunks:
            return False
        for seq, tokens, _ in chunks:
            if seq not in self.running:
                self.waiting.remove(seq)
                self.running.append(seq)
            seq.done += tokens
            if seq.done == seq.target:
                seq.lane = lane
        pairs = sum(q * h + q * (q + 1) // 2 for _, q, h in chunks)
        completed = sum(s.done == s.target for s, _, _ in chunks)
        moments = (len(chunks), sum(q for _, q, _ in chunks), sum(h for _, _, h in chunks), pairs, completed)
        time, send = now, self.prices.send(len(own) + moments[1])
        for stage, taken in enumerate(
            self.prices.stages(len(own), sum(s.prompt + s.emitted - 1 for s in own), moments)
        ):
            time = max(time + (send if stage else 0), self.free[stage]) + taken
            self.free[stage] = time
        self.flight.append((lane, own, chunks, time))
        self.batches.append((lane, now, time))
        return True

    def chunks(self, decoding, partial, preempted):
        left, taken = self.budget - decoding, []
        free = self.kv.blocks - sum(self.held(s) for s in self.running)
        if preempted and partial is None:
            return []
        if partial is not None:
            taken.append((partial, min(left, partial.target - partial.done), partial.done))
            free -= self.blocks(partial.done + taken[0][1]) - self.blocks(partial.done)
            left -= taken[0][1]
        count = len([s for s in self.running if s is not partial]) + len(taken)
        for seq in [] if preempted else self.waiting:
            tokens = min(left, seq.target)
            if left <= 0 or count >= self.max_seqs or self.blocks(tokens) > free:
                break
            taken.append((seq, tokens, 0))
            left, free, count = left - tokens, free - self.blocks(tokens), count + 1
        return taken

    def through(self, decoders, chunks, now):
        for seq in decoders:
            seq.emitted += 1
            self.end(seq, now)
        for seq, tokens, before in chunks:
            if before + tokens == seq.target:
                seq.decoding = True
                seq.emitted += 1
                if seq.emitted == 1:
                    self.first[seq.request] = now
                self.end(seq, now)

    def end(self, seq, now):
        if seq.emitted == seq.output:
            self.finish[seq.request] = now
            self.running.remove(seq)
