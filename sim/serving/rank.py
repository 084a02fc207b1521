"""A rank: its queue, its running sequences, its KV pool. It plans blocks of steps and commits them; it has no clock.

A step is plan, price, advance, record. A rank's plan stays true for a *block* of steps: until a sequence finishes,
a message arrives, or the pool would run dry. Whatever the length of its blocks, it does the same to the bit.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Protocol

from sim.cost.lines import Lines
from sim.metrics.record import Recorder
from sim.serving.block import Block, elapsed, first_end
from sim.serving.kv import KvLayout
from sim.serving.ledger import Ledger
from sim.serving.paths import Paths
from sim.serving.scheduler import Chunk, Room, Scheduler
from sim.serving.sequence import Sequence

_NO_PREFILL = (0, 0, 0, 0, 0)
_NOBODY: deque[Sequence] = deque()


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
        self._most_blocks = 0

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
        chunks = self._chunks(preempted) if self.waiting or self.partial is not None else []
        if chunks:
            return self._plan_mixed(now, chunks)
        decoding = len(self.running)
        if not decoding:
            if self.waiting:
                raise AssertionError(
                    f"rank of replica {self._replica} holds {len(self)} requests and can run none: {self._kv}"
                )
            return None
        steps = self._steady_steps(1 if preempted else self._max_block_steps)
        end = now + elapsed(self._prices.decode(decoding), self._ledger, self._step, steps)
        return Block(now, end, steps, decoding, chunks, _NO_PREFILL, len(self.waiting))

    def cut(self, block: Block, at: int) -> None:
        """Shorten `block` to the first boundary of its steps at or after tick `at`."""
        if block.steps > 1 and at < block.end:
            lines = self._prices.decode(block.decoding)
            block.steps, block.end = first_end(lines, self._ledger, self._step, block, at)

    def commit(self, block: Block) -> int:
        """The block is over: advance, record, let go of what finished. Returns how many requests finished."""
        ledger, step, steps = self._ledger, self._step, block.steps
        needed, cached = ledger.blocks(step), ledger.cached(step)
        total = ledger.total(step, steps)
        if self._recorder.keep_steps:
            self._recorder.contexts(ledger.contexts(step, steps))
        self._step = step = step + steps
        finished, emitted = self._let_go(block.end)
        emitted += ledger.cached(step) - cached
        finished += self._commit_chunks(block)
        self._recorder.block(
            self._replica, block.start, block.end, steps, block.decoding, self._drafts, total,
            *block.moments, emitted + block.moments[4], block.waiting, needed,
        )  # fmt: skip
        return finished

    def _let_go(self, now: int) -> tuple[int, int]:
        """Sequences whose last round is over leave; how many, and the tokens they had cached and emitted last."""
        finished = tokens = 0
        ends = self._ends
        while ends and ends[0][0] <= self._step:
            end, request = heappop(ends)
            sequence = self.running.get(request)
            if sequence is None or sequence.ends != end:
                continue  # preempted since
            del self.running[request]
            path = sequence.path
            assert path is not None
            self._ledger.end(end, path)
            self._most_blocks -= path.most_blocks
            tokens += sequence.prompt_tokens + sequence.output_tokens - 1
            self._finish(sequence, now)
            finished += 1
        return finished, tokens

    def _chunks(self, preempted: bool) -> list[Chunk]:
        """Prefill of the coming step; a step that preempted admits nobody (vLLM V1)."""
        if preempted and self.partial is None:
            return []
        free = self._kv.blocks - self._ledger.blocks(self._step)
        if self.partial is not None:
            free -= self._kv.blocks_for(self.partial.prefilled)
        return self._scheduler.chunks(_NOBODY if preempted else self.waiting, self._room(free))

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
        moments = (len(chunks), new, history, pairs, completed)
        decoding = len(self.running)
        ticks = self._prices.mixed(decoding, self._ledger.cached(self._step), *moments)
        return Block(now, now + ticks, 1, decoding, chunks, moments, len(self.waiting))

    def _steady_steps(self, most: int) -> int:
        """Steps until a sequence finishes or the pool runs dry; at least 1, for this step fits already."""
        ends = self._ends
        while ends[0][0] <= self._step or self._stale(ends[0]):
            heappop(ends)
        steps = min(ends[0][0] - self._step, most)
        if self._most_blocks > self._kv.blocks:
            steps = self._ledger.steps_within(self._step, steps, self._kv.blocks)
        return steps

    def _stale(self, end: tuple[int, int]) -> bool:
        """Whether this entry of the heap belongs to a sequence that was preempted since."""
        sequence = self.running.get(end[1])
        return sequence is None or sequence.ends != end[0]

    def _preempt_until_fits(self) -> bool:
        """Preempt from the tail until the coming step's KV fits (vLLM V1: last come, first preempted, recomputed)."""
        preempted = False
        while self._might_not_fit() and self._needed_blocks() > self._kv.blocks:
            self._preempt_tail()
            preempted = True
        return preempted

    def _might_not_fit(self) -> bool:
        """Whether the pool could run dry at all: while everybody's last round fits, it cannot."""
        most = self._most_blocks
        if self.partial is not None:
            most += self._kv.blocks_for(self.partial.prefill_tokens)
        return most > self._kv.blocks

    def _needed_blocks(self) -> int:
        """KV blocks of the coming step before anybody is admitted."""
        needed = self._ledger.blocks(self._step)
        if self.partial is not None:
            chunk = self._scheduler.chunks(_NOBODY, self._room(self._kv.blocks))[0]
            needed += self._kv.blocks_for(self.partial.prefilled + chunk.tokens)
        return needed

    def _room(self, free_blocks: int) -> Room:
        decoding = len(self.running)
        return Room(decoding, decoding * (self._drafts + 1), self.partial, free_blocks, self._kv)

    def _preempt_tail(self) -> None:
        """The last sequence admitted gives its blocks back and goes to the head of the queue."""
        if self.partial is not None:
            sequence, self.partial = self.partial, None
        else:
            request, sequence = self.running.popitem()
            assert sequence.path is not None
            done = self._step - sequence.joined
            self._ledger.leave(self._step, sequence.path, done)
            self._most_blocks -= sequence.path.most_blocks
            self._recorder.rounds[request] += done
            self._recorder.accepted[request] += sequence.path.accepted(done)
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
        self._most_blocks += path.most_blocks
        self.running[request] = sequence
        heappush(self._ends, (sequence.ends, request))
        return 0

    def _finish(self, sequence: Sequence, now: int) -> None:
        recorder, request = self._recorder, sequence.request
        recorder.finish[request] = now
        recorder.replica[request] = self._replica
        if sequence.path is not None:
            recorder.rounds[request] += len(sequence.path)
            recorder.accepted[request] += sequence.path.accepted(len(sequence.path))
