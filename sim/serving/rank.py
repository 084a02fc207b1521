"""A rank: its queue, its running sequences, its KV pool. It plans blocks of steps and commits them; it has no clock.

A step is plan, price, advance, record. A rank's plan stays true for a *block* of steps: until a sequence finishes,
a message arrives, or the pool would run dry. Whatever the length of its blocks, it does the same to the bit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.cost.lines import Lines
from sim.metrics.record import Recorder
from sim.serving.kv import KvLayout
from sim.serving.ledger import Ledger
from sim.serving.paths import Paths
from sim.serving.scheduler import Chunk, Room, Scheduler
from sim.serving.sequence import Sequence

_NO_PREFILL = (0, 0, 0, 0, 0)


class Prices(Protocol):
    """What a rank asks a cost model: step time in ticks."""

    def decode(self, sequences: int) -> Lines:
        """Steps in which `sequences` decode (or verify) and nothing is prefilled."""

    def mixed(
        self,
        sequences: int,
        context_tokens: int,
        chunks: int,
        new_tokens: int,
        history_tokens: int,
        pairs: int,
        completed: int,
    ) -> int:
        """One step with prefill; arguments as in `StepShape`."""


@dataclass(slots=True)
class Block:
    """`steps` coming steps of one plan, from tick `start` to `end`; with prefill there is one step.

    Attributes:
        context: cached tokens of the decoding sequences before each step.
        chunks: what is prefilled.
        moments: chunks, new tokens, history tokens, pairs and completed prompts, as in `StepShape`.
        waiting: requests left in the queue.
    """

    start: int
    end: int
    steps: int
    context: NDArray[np.int64]
    chunks: list[Chunk]
    moments: tuple[int, int, int, int, int]
    waiting: int


class Rank:
    """One scheduler with its queue and pool.

    Args:
        replica: number of the replica it belongs to, for the records.
        prices: step times.
        paths: the futures of the requests.
        scheduler: the policy.
        kv: the pool.
        recorder: where it writes.
        drafts: draft tokens per round.
        max_block_steps: longest block; the results do not depend on it.
    """

    def __init__(
        self,
        replica: int,
        prices: Prices,
        paths: Paths,
        scheduler: Scheduler,
        kv: KvLayout,
        recorder: Recorder,
        drafts: int,
        max_block_steps: int,
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: dict[int, Sequence] = {}
        self.partial: Sequence | None = None
        self._replica = replica
        self._prices = prices
        self._paths = paths
        self._scheduler = scheduler
        self._kv = kv
        self._recorder = recorder
        self._drafts = drafts
        self._max_block_steps = max_block_steps
        self._step = 0
        self._ledger = Ledger()
        self._ends: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Requests it holds, waiting ones included."""
        return len(self.waiting) + len(self.running) + (self.partial is not None)

    def enqueue(self, sequence: Sequence) -> bool:
        """A request arrives; whether it may change what is planned."""
        self.waiting.append(sequence)
        return self._scheduler.heeds_arrival(self.waiting, len(self.running) + (self.partial is not None))

    def plan(self, now: int) -> Block | None:
        """The next block from tick `now` on, or None when there is nothing to run."""
        preempted = self._preempt_until_fits()
        chunks = [] if preempted and self.partial is None else self._chunks(preempted)
        if not chunks and not self.running:
            if self.waiting:
                raise AssertionError(
                    f"rank of replica {self._replica} holds {len(self)} requests and can run none: {self._kv}"
                )
            return None
        if chunks:
            return self._plan_mixed(now, chunks)
        steps = self._steady_steps(1 if preempted else self._max_block_steps)
        context = self._ledger.context(self._step, steps)
        ticks = self._prices.decode(len(self.running)).total(context)
        return Block(now, now + ticks, steps, context, chunks, _NO_PREFILL, len(self.waiting))

    def cut(self, block: Block, at: int) -> None:
        """Shorten `block` to the first boundary of its steps at or after tick `at`."""
        if block.steps == 1 or at >= block.end:
            return
        ends = np.cumsum(self._prices.decode(len(self.running)).durations(block.context)) + block.start
        block.steps = int(np.searchsorted(ends, at, side="left")) + 1
        block.end = int(ends[block.steps - 1])
        block.context = block.context[: block.steps]

    def commit(self, block: Block) -> int:
        """The block is over: advance, record, let go of what finished. Returns how many requests finished."""
        before = len(self.running)
        context_before = int(block.context[0]) if before else 0
        needed = int(self._ledger.blocks(self._step, 1)[0])
        context_sum = int(block.context.sum()) if block.steps > 1 else context_before
        if self._recorder.keep_steps:
            self._recorder.contexts(block.context)
        self._step += block.steps
        emitted = int(self._ledger.context(self._step, 1)[0]) - context_before
        finished = 0
        while self._ends and self._ends[0][0] <= self._step:
            ends, request = heappop(self._ends)
            sequence = self.running.get(request)
            if sequence is None or sequence.ends != ends:
                continue
            emitted += sequence.prompt_tokens + sequence.output_tokens - 1
            self._finish(self.running.pop(request), block.end)
            finished += 1
        finished += self._commit_chunks(block)
        self._recorder.block(
            self._replica, block.start, block.end, block.steps, before, self._drafts, context_sum,
            *block.moments, emitted + block.moments[4], block.waiting, needed,
        )  # fmt: skip
        return finished

    def _chunks(self, preempted: bool) -> list[Chunk]:
        """Prefill of the coming step; a step that preempted admits nobody (vLLM V1)."""
        waiting = deque[Sequence]() if preempted else self.waiting
        if not waiting and self.partial is None:
            return []
        decoding = len(self.running)
        free = self._kv.blocks - int(self._ledger.blocks(self._step, 1)[0])
        if self.partial is not None:
            free -= self._kv.blocks_for(self.partial.prefilled)
        room = Room(decoding, decoding * (self._drafts + 1), self.partial, free, self._kv)
        return self._scheduler.chunks(waiting, room)

    def _plan_mixed(self, now: int, chunks: list[Chunk]) -> Block:
        """One step with these chunks; admission happens here, so that nothing can come between plan and step."""
        new = history = pairs = completed = 0
        for sequence, tokens in chunks:
            new += tokens
            history += sequence.prefilled
            pairs += tokens * sequence.prefilled + tokens * (tokens + 1) // 2
            completed += tokens == sequence.unfilled_tokens
            if self.waiting and sequence is self.waiting[0]:
                self.waiting.popleft()
        context = self._ledger.context(self._step, 1)
        moments = (len(chunks), new, history, pairs, completed)
        ticks = self._prices.mixed(len(self.running), int(context[0]), *moments)
        return Block(now, now + ticks, 1, context, chunks, moments, len(self.waiting))

    def _steady_steps(self, most: int) -> int:
        """Steps until a sequence finishes or the pool runs dry; at least 1, for this step fits already."""
        while self._ends[0][0] <= self._step or self._stale(self._ends[0]):
            heappop(self._ends)
        steps = min(self._ends[0][0] - self._step, most)
        blocks = self._ledger.blocks(self._step, steps)
        if blocks[-1] > self._kv.blocks:
            steps = int(np.searchsorted(blocks, self._kv.blocks, side="right"))
        return steps

    def _stale(self, end: tuple[int, int]) -> bool:
        """Whether this entry of the heap belongs to a sequence that was preempted since."""
        sequence = self.running.get(end[1])
        return sequence is None or sequence.ends != end[0]

    def _preempt_until_fits(self) -> bool:
        """Preempt from the tail until the coming step's KV fits (vLLM V1: last come, first preempted, recomputed)."""
        preempted = False
        while True:
            needed = int(self._ledger.blocks(self._step, 1)[0])
            if self.partial is not None:
                chunk = self._scheduler.chunks(deque(), self._room_for_partial())[0]
                needed += self._kv.blocks_for(self.partial.prefilled + chunk.tokens)
            if needed <= self._kv.blocks:
                return preempted
            self._preempt_tail()
            preempted = True

    def _room_for_partial(self) -> Room:
        decoding = len(self.running)
        return Room(decoding, decoding * (self._drafts + 1), self.partial, self._kv.blocks, self._kv)

    def _preempt_tail(self) -> None:
        """The last sequence admitted gives its blocks back and goes to the head of the queue."""
        if self.partial is not None:
            sequence, self.partial = self.partial, None
        else:
            request, sequence = self.running.popitem()
            assert sequence.path is not None
            done = self._step - sequence.joined
            self._ledger.leave(self._step, sequence.path, done)
            self._recorder.rounds[request] += done
            self._recorder.accepted[request] += int(sequence.path.accepted[:done].sum())
        sequence.preempt(self._step)
        self._recorder.preemptions[sequence.request] += 1
        self.waiting.appendleft(sequence)

    def _commit_chunks(self, block: Block) -> int:
        """Advance the prefill of the block's chunks; returns how many requests finished with their first token."""
        finished = 0
        for sequence, tokens in block.chunks:
            if sequence.prefilled == 0 and self._recorder.admitted[sequence.request] < 0:
                self._recorder.admitted[sequence.request] = block.start
            sequence.prefilled += tokens
            self.partial = sequence if sequence.unfilled_tokens else None
            if self.partial is None:
                finished += self._start_decoding(sequence, block.end)
        return finished

    def _start_decoding(self, sequence: Sequence, now: int) -> int:
        """The prefill is complete and has emitted a token."""
        request = sequence.request
        sequence.emitted += 1
        if sequence.emitted == 1:
            self._recorder.first_token[request] = now
        if sequence.emitted == sequence.output_tokens:
            self._finish(sequence, now)
            return 1
        path = self._paths.first(request) if sequence.emitted == 1 else self._paths.rest(request, sequence.emitted)
        sequence.path, sequence.joined = path, self._step
        self._ledger.join(self._step, path)
        self.running[request] = sequence
        heappush(self._ends, (sequence.ends, request))
        return 0

    def _finish(self, sequence: Sequence, now: int) -> None:
        recorder, request = self._recorder, sequence.request
        recorder.finish[request] = now
        recorder.replica[request] = self._replica
        if sequence.path is not None:
            recorder.rounds[request] += len(sequence.path)
            if self._drafts:
                recorder.accepted[request] += int(sequence.path.accepted.sum())
