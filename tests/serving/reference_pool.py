"""The KV blocks of the reference rank, counted afresh from its sequences whenever somebody asks."""

from __future__ import annotations


class ReferencePool:
    """Methods over a rank's `kv`, `block_ids`, `running`, `held` and `cached`."""

    def blocks(self, tokens):
        return -(-(tokens + self.kv.lookahead_tokens) // self.kv.block_tokens)

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
