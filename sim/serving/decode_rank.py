"""A rank that only decodes: requests come with their first token, their KV cache over the network.

Mirrors the decode side of vLLM's NIXL connector (`vllm/v1/core/sched/scheduler.py`, WAITING_FOR_REMOTE_KVS): in order
of hand-over, and only while a slot is free and nobody preempted waits, a request's blocks are set aside, then its KV is
transferred, then it decodes with the first step that has a slot. Who is preempted is computed again here. Other than
there the first token comes from the prefill side (as in DistServe and SGLang), blocks are set aside for the first round
as well, and what is decoded here leaves no prefix cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sim.metrics.record import Recorder
from sim.serving.block import Block
from sim.serving.paths import Paths
from sim.serving.prefill_rank import SendingPool
from sim.serving.rank import Rank
from sim.serving.sequence import Chunk, Sequence
from sim.serving.setup import RankSetup

Recompute = Callable[[list[int]], int]
"""Ticks that a draft model takes to compute its own KV of contexts of so many tokens."""


class DecodeRank(Rank):
    """A Rank that `receive`s requests with one token or more out.

    Attributes:
        incoming: whose blocks are not set aside yet.
        coming: by request, whose KV is under way.
        received: whose KV is here and who wait for a slot.
        set_aside: told of each whose blocks are set aside; the fleet's to set.

    Args:
        replica, setup, paths, recorder: as for Rank, without prefix caching.
        recompute: what a sequence's draft KV takes when it joins; None where it came along or there is none.
    """

    def __init__(
        self, replica: int, setup: RankSetup, paths: Paths, recorder: Recorder, recompute: Recompute | None = None
    ) -> None:
        assert setup.block_ids is None, "a decode rank keeps no prefix cache"
        Rank.__init__(self, replica, setup, paths, recorder)
        self.pool = self._pool = SendingPool(setup.kv, None)
        self.incoming: deque[Sequence] = deque()
        self.coming: dict[int, Sequence] = {}
        self.received: deque[Sequence] = deque()
        self.set_aside: Callable[[int], None] = _nobody
        self._width = paths.rule.width(setup.drafts)
        self._recompute = recompute
        self._joined: list[int] = []
        self._gave_way = False

    def __len__(self) -> int:
        return Rank.__len__(self) + len(self.incoming) + len(self.coming) + len(self.received)

    def receive(self, sequence: Sequence, block: Block | None, now: int) -> None:
        """A request is handed over; the block under way is cut where its blocks could be set aside next."""
        heeded = not self.incoming and not self.waiting and len(self.batch) < self._scheduler.max_seqs
        self._see(sequence, block, now, heeded=heeded)
        self.incoming.append(sequence)

    def arrive(self, request: int, block: Block | None, now: int) -> None:
        """The KV of `request` is here; the block under way is cut where it could join next."""
        sequence = self.coming.pop(request)
        heeded = len(self.batch) + len(self.received) < self._scheduler.max_seqs
        self._see(sequence, block, now, heeded=heeded)
        self.received.append(sequence)

    def forget(self, sequence: Sequence) -> None:
        """`sequence`, which does not run yet, is gone, and what was set aside for it free."""
        if sequence in self.incoming:
            self.incoming.remove(sequence)
            return
        if self.coming.pop(sequence.request, None) is None:
            self.received.remove(sequence)
        self._pool.set_aside -= self._blocks(sequence)

    def plan(self, now: int) -> Block | None:
        """As in Rank, after those whose KV is here have joined."""
        self._gave_way = False
        self._join()
        block = Rank.plan(self, now)
        if block is None:
            if self._gave_way and (self.waiting or self.incoming or self.received):
                self.steps += 1
                return self.plan(now)
        elif self._joined:
            self._compute_draft(block)
        return block

    def _see(self, sequence: Sequence, block: Block | None, now: int, *, heeded: bool) -> None:
        """Something new about `sequence`: the first step whose planning knows; cut the block where it matters."""
        ahead = self._planned_ahead
        sequence.seen = self.steps
        if block is None:
            sequence.seen += ahead if self.batch or self.partial is not None else 0
            return
        steps, end = block.steps, block.end
        if steps > 1 and (heeded or ahead):
            steps, end = self.rounds.pace(self.batch).first_end(self.batch.step, block, now)
        sequence.seen += steps + ahead
        if heeded:
            block.steps, block.end = steps, end

    def _knows(self, sequence: Sequence) -> bool:
        return not self._planned_ahead or sequence.seen <= self.steps

    def _running(self) -> int:
        return len(self.batch) + (self.partial is not None) + self.pool.held_sequences(self.steps)

    def _blocks(self, sequence: Sequence) -> int:
        """Blocks of what is transferred and of the widest first round."""
        return self.pool.kv.blocks_for(sequence.prefill_tokens - 1 + self._width)

    def _join(self) -> None:
        """Who has its KV runs, in order of its coming."""
        while self.received and self._knows(self.received[0]) and self._running() < self._scheduler.max_seqs:
            sequence = self.received.popleft()
            self._pool.set_aside -= self._blocks(sequence)
            self.batch.join(sequence, self.rounds.path(sequence))
            if self._recompute is not None:
                self._joined.append(sequence.prefill_tokens - 1)

    def _compute_draft(self, block: Block) -> None:
        """The draft model computes its KV of those who have just joined, in one step."""
        assert self._recompute is not None
        joined, self._joined = self._joined, []
        if block.steps > 1:
            block.end, block.steps = block.start + self.rounds.pace(self.batch).elapsed(self.batch.step, 1), 1
        block.end += self._recompute(joined)

    def _set_aside(self, used: int, running: int) -> None:
        """Blocks for who was handed over, in order, while they fit beside the `used` blocks of the coming step."""
        if self._gave_way or self.waiting:
            return
        while self.incoming and self._knows(self.incoming[0]) and running < self._scheduler.max_seqs:
            needed = self._blocks(self.incoming[0])
            if used + needed > self.pool.kv.blocks:
                return
            sequence = self.incoming.popleft()
            self.coming[sequence.request] = sequence
            self._pool.set_aside += needed
            used += needed
            self.set_aside(sequence.request)

    def _steady_steps(self, preempted: bool) -> int:
        batch, pool = self.batch, self.pool
        self._set_aside(pool.used(batch, None, self.steps), self._running())
        steps = Rank._steady_steps(self, preempted)
        if batch.most_blocks > pool.most_blocks:
            steps = max(1, batch.ledger.steps_within(batch.step, steps, pool.most_blocks))
        if self.incoming or self.received:
            if pool.held_sequences(self.steps):
                return 1
            if self._planned_ahead:
                later = (sequence.seen - self.steps for sequence in (*self.incoming, *self.received))
                steps = min([steps, *(after for after in later if after > 0)])
        return steps

    def _plan_prefill(self, now: int, chunks: list[Chunk]) -> Block:
        block = Rank._plan_prefill(self, now, chunks)
        used = self.pool.used(self.batch, None, self.steps) + self.pool.chunk_blocks(chunks)
        running = len(self.batch) + len(chunks) + self.pool.held_sequences(self.steps)
        self._set_aside(used, running)
        return block

    def _plan_nothing(self, now: int) -> Block | None:
        block = Rank._plan_nothing(self, now)
        if block is not None or self._gave_way:
            return block
        known = max((sequence.seen for sequence in (*self.incoming, *self.received)), default=0)
        if (self._planned_ahead and known > self.steps) or (known and self.pool.held_sequences(self.steps)):
            self.steps = max(known, self.steps + 1)
            return self.plan(now)
        self._set_aside(self.pool.used(self.batch, None, self.steps), 0)
        return None

    def _preempt(self) -> None:
        self._gave_way = True
        Rank._preempt(self)


def _nobody(_: int) -> None:
    """Whom a rank tells that has no fleet."""
