"""A rank: its queue, its running sequences, its KV pool. It plans blocks of steps and commits them; it has no clock.

A step is plan, price, advance, record. A rank's plan stays true for a *block* of steps: until a sequence finishes,
a message arrives, or the pool would run dry. Whatever the length of its blocks, it does the same to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from sim.metrics.record import Recorder
from sim.serving.batch import Batch
from sim.serving.block import Block, Pace, RaggedPace, SteadyPace
from sim.serving.paths import Paths
from sim.serving.scheduler import Chunk, Room
from sim.serving.sequence import Sequence
from sim.serving.setup import RankSetup
from sim.speculation.length import FOREVER, Choice, Chooser

_NO_PREFILL = (0, 0, 0, 0, 0)


class Rank:
    """One scheduler with its queue and pool.

    Args:
        replica: number of the replica it belongs to, for the records.
        setup: how it serves.
        paths: the futures of the requests.
        recorder: where it writes.
    """

    def __init__(self, replica: int, setup: RankSetup, paths: Paths, recorder: Recorder) -> None:
        self.waiting: deque[Sequence] = deque()
        self.partial: Sequence | None = None
        rule = paths.rule
        self.batch = Batch(setup.drafts if rule.ragged else 0, rule.trailing_rounds)
        self._replica = replica
        self._prices = setup.prices
        self._scheduler = setup.scheduler
        self._kv = setup.kv
        self._max_block_steps = setup.max_block_steps
        self._planned_ahead = setup.planned_ahead
        self._paths = paths
        self._recorder = recorder
        self._ragged = rule.ragged
        self._width = rule.width
        self._drafts = setup.drafts
        self._chooser = setup.chooser() if setup.chooser is not None else None
        self._choice = Choice(setup.drafts)
        self._steps = 0
        self._decoded = False
        self._held = (0, 0, 0)

    def __len__(self) -> int:
        """Requests it holds, waiting ones included."""
        return len(self.waiting) + len(self.batch) + (self.partial is not None)

    def receive(self, sequence: Sequence, block: Block | None, now: int) -> None:
        """A request arrives; `block`, the one under way, is cut where it could be admitted next."""
        scheduler = self._scheduler
        scheduler.place(self.waiting, sequence)
        sequence.seen = self._steps
        if block is None:
            sequence.seen += self._planned_ahead if self.batch or self.partial is not None else 0
            return
        heeded = scheduler.heeds_arrival(self.waiting, sequence, len(self.batch))
        steps, end = block.steps, block.end
        if steps > 1 and (heeded or self._planned_ahead):
            steps, end = self._pace(block.decoding).first_end(self.batch.step, block, now)
        sequence.seen += steps + self._planned_ahead
        if heeded:
            block.steps, block.end = steps, end

    def plan(self, now: int) -> Block | None:
        """The next block from tick `now` on, or None when there is nothing to run."""
        if self._chooser is not None and self.batch:
            self._choose(self._chooser)
        preempted = self._preempt_until_fits()
        chunks = self._chunks(preempted) if self.waiting or self.partial is not None else []
        if chunks:
            return self._plan_prefill(now, chunks)
        decoding = len(self.batch)
        if not decoding:
            return self._plan_nothing(now)
        steps = self._steady_steps(preempted)
        end = now + self._pace(decoding).elapsed(self.batch.step, steps)
        return Block(now, end, steps, decoding, self._drafts, chunks, _NO_PREFILL, len(self.waiting))

    def commit(self, block: Block) -> int:
        """The block is over: advance, record, let go of what finished. Returns how many requests finished."""
        batch, steps = self.batch, block.steps
        ledger, step = batch.ledger, batch.step
        self._steps += steps
        needed, total, emitted, finished = ledger.blocks(step), 0, 0, 0
        if self._recorder.keep_steps:
            self._record_steps(block)
        verified = 0
        if block.decoding:
            verified = steps * block.decoding * self._width(block.drafts)
            if self._ragged:
                verified = sum(block.decoding + sum(ledger.at_least(step + i)) for i in range(steps))
            cached, total = ledger.cached(step), ledger.total(step, steps)
            done, left = batch.advance(steps)
            emitted = batch.cached - cached + sum(s.prompt_tokens + s.output_tokens - 1 for s in left)
            finished = self._finish_all(done, block.end)
            self._decoded = bool(batch)
            if self._chooser is not None:
                self._chooser.observe(steps, emitted, block.end - block.start)
        if block.chunks:
            finished += self._commit_chunks(block)
        self._recorder.block(
            self._replica, block.start, block.end, steps, block.decoding, block.drafts, verified, total,
            *block.moments, emitted + block.moments[4], block.waiting, needed,
        )  # fmt: skip
        return finished

    def _record_steps(self, block: Block) -> None:
        """One row per step of a block that is about to be committed."""
        context = self.batch.ledger.contexts(self.batch.step, block.steps) * (block.decoding > 0)
        if block.steps == 1:
            ticks = np.array([block.end - block.start])
        else:
            ticks = self._pace(block.decoding).each(self.batch.step, context)
        self._recorder.steps(context, ticks)

    def _pace(self, decoding: int) -> Pace:
        if self._ragged:
            return RaggedPace(self._prices, self.batch.ledger, decoding)
        return SteadyPace(self._prices.decode(decoding, self._drafts), self.batch.ledger)

    def _choose(self, chooser: Chooser) -> None:
        """Ask for the coming step's draft length; another one puts the running sequences on other paths."""
        batch = self.batch
        self._choice = choice = chooser.choose(len(batch), batch.cached)
        if choice.drafts == self._drafts:
            return
        self._drafts = choice.drafts
        for sequence in list(batch.sequences.values()):
            if sequence.finished:
                continue
            emitted = sequence.emitted_before(batch.step)
            self._account(sequence, batch.step - sequence.joined)
            batch.leave(sequence)
            sequence.emitted = emitted
            batch.join(sequence, self._paths.rest(sequence.request, emitted, choice.drafts))

    def _chunks(self, preempted: bool) -> list[Chunk]:
        """Prefill of the coming step; a step that preempted admits nobody (vLLM V1)."""
        if preempted and self.partial is None:
            return []
        free = self._kv.blocks - self.batch.blocks - self._held_now()[1]
        if self.partial is not None:
            free -= self._kv.blocks_for(self.partial.prefilled)
        return self._scheduler.chunks(() if preempted else self._visible(), self._room(free))

    def _visible(self) -> Iterable[Sequence]:
        """Waiting requests that the planning of the coming step has seen."""
        if not self._planned_ahead:
            return self.waiting
        return (sequence for sequence in self.waiting if sequence.seen <= self._steps)

    def _held_now(self) -> tuple[int, int]:
        """Sequences and KV blocks of the requests that finished too late for the coming step's plan."""
        steps, sequences, blocks = self._held
        return (sequences, blocks) if steps == self._steps else (0, 0)

    def _room(self, free_blocks: int) -> Room:
        decoding, future = len(self.batch), self.batch.most_blocks - self.batch.blocks
        tokens = decoding * self._width(self._drafts) if self._scheduler.mixes else 0
        return Room(decoding + self._held_now()[0], tokens, self.partial, free_blocks, self._kv, self._decoded, future)

    def _plan_prefill(self, now: int, chunks: list[Chunk]) -> Block:
        """One step with these chunks; admission happens here, so that nothing can come between plan and step."""
        new = history = pairs = completed = 0
        waiting = self.waiting
        for sequence, tokens in chunks:
            new += tokens
            history += sequence.prefilled
            pairs += tokens * sequence.prefilled + tokens * (tokens + 1) // 2
            completed += tokens == sequence.unfilled_tokens
            if sequence is not self.partial:
                if sequence is waiting[0]:
                    waiting.popleft()
                else:
                    waiting.remove(sequence)
        moments = (len(chunks), new, history, pairs, completed)
        decoding = len(self.batch) if self._scheduler.mixes else 0
        cached = self.batch.cached if decoding else 0
        if self._ragged:
            wider = self.batch.ledger.at_least(self.batch.step) if decoding else ()
            ticks = self._prices.ragged_mixed(wider, decoding, cached, *moments)
        else:
            ticks = self._prices.mixed(self._drafts, decoding, cached, *moments)
        return Block(now, now + ticks, 1, decoding, self._drafts, chunks, moments, len(waiting))

    def _plan_nothing(self, now: int) -> Block | None:
        """Nothing runs: whoever waits has not been seen yet, and the next plan sees all."""
        self._decoded = False
        if not self.waiting:
            return None
        newest = max(sequence.seen for sequence in self.waiting)
        if newest > self._steps or self._held_now()[0]:
            self._steps = max(newest, self._steps + 1)
            return self.plan(now)
        raise AssertionError(f"rank of replica {self._replica} holds {len(self)} requests and can run none: {self._kv}")

    def _steady_steps(self, preempted: bool) -> int:
        """Steps until a sequence finishes, the pool runs dry or somebody is seen; at least 1, for this step fits."""
        batch, choice = self.batch, self._choice
        steps = min(batch.next_end() - batch.step, self._max_block_steps, choice.steps)
        if preempted or (self.waiting and self._held_now()[0]):
            return 1
        if self._planned_ahead and self.waiting:
            ahead = (sequence.seen - self._steps for sequence in self.waiting)
            steps = min([steps, *(later for later in ahead if later > 0)])
        if batch.most_blocks > self._kv.blocks:
            steps = batch.ledger.steps_within(batch.step, steps, self._kv.blocks)
        if choice.until_cached < FOREVER:
            steps = max(1, batch.ledger.steps_below(batch.step, steps, choice.until_cached))
        return steps

    def _preempt_until_fits(self) -> bool:
        """Preempt until the coming step's KV fits; the sequence is computed again later (vLLM V1)."""
        preempted = False
        while self._might_not_fit() and self._needed_blocks() > self._kv.blocks:
            self._preempt()
            preempted = True
        return preempted

    def _might_not_fit(self) -> bool:
        """Whether the pool could run dry at all: while everybody's last round fits, it cannot."""
        most = self.batch.most_blocks + self._held_now()[1]
        if self.partial is not None:
            most += self._kv.blocks_for(self.partial.prefill_tokens)
        return most > self._kv.blocks

    def _needed_blocks(self) -> int:
        """KV blocks of the coming step before anybody is admitted."""
        needed = self.batch.blocks + self._held_now()[1]
        if self.partial is not None:
            chunks = self._scheduler.chunks((), self._room(self._kv.blocks))
            needed += self._kv.blocks_for(self.partial.prefilled + sum(chunk.tokens for chunk in chunks))
        return needed

    def _preempt(self) -> None:
        """The last sequence admitted, or the policy's choice, gives its blocks back and heads the queue."""
        if self.partial is not None:
            sequence, self.partial = self.partial, None
        else:
            sequence = self._scheduler.victim(self.batch)
            if not sequence.finished:
                self._account(sequence, self.batch.step - sequence.joined)
            self.batch.leave(sequence)
            if sequence.finished:
                return
        sequence.preempt(self.batch.step)
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
        if sequence.emitted == 1:
            path = self._paths.first(request, self._drafts)
        else:
            path = self._paths.rest(request, sequence.emitted, self._drafts)
        self.batch.join(sequence, path)
        return 0

    def _finish_all(self, finished: list[Sequence], now: int) -> int:
        """Requests whose last token came with a round; without trailing rounds they hold slots and blocks on."""
        for sequence in finished:
            assert sequence.path is not None
            self._account(sequence, len(sequence.path) - self._paths.rule.trailing_rounds)
            self._finish(sequence, now)
        if finished and self._planned_ahead and not self._paths.rule.trailing_rounds:
            blocks = sum(sequence.path.most_blocks for sequence in finished if sequence.path is not None)
            self._held = (self._steps, len(finished), blocks)
        return len(finished)

    def _finish(self, sequence: Sequence, now: int) -> None:
        self._recorder.finish[sequence.request] = now
        self._recorder.replica[sequence.request] = self._replica

    def _account(self, sequence: Sequence, rounds: int) -> None:
        """Rounds that the sequence has run since it joined, and what they drafted and accepted."""
        recorder, request, path = self._recorder, sequence.request, sequence.path
        if path is not None:
            recorder.rounds[request] += rounds
            recorder.accepted[request] += path.accepted(rounds)
            recorder.drafted[request] += path.drafted(rounds)
