"""A rank: its queue, its running sequences, its KV pool. It plans blocks of steps and commits them; it has no clock.

A step is plan, price, advance, record. A rank's plan stays true for a *block* of steps: until a sequence finishes,
a message arrives, or the pool would run dry. Whatever the length of its blocks, it does the same to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from sim.metrics.record import Recorder
from sim.serving.admission import Room
from sim.serving.batch import Batch
from sim.serving.block import Block
from sim.serving.paths import Paths
from sim.serving.pool import Pool
from sim.serving.sequence import Chunk, Sequence
from sim.serving.setup import RankSetup
from sim.serving.verification import Verification

_NO_PREFILL = (0, 0, 0, 0, 0)


class Rank:
    """One scheduler with its queue and pool.

    Attributes:
        waiting: its queue.
        partial: the sequence whose prefill is under way, between two steps.
        batch: its decoding sequences.
        pool: its KV blocks.
        steps: how many it has run.
        ended: requests that have finished; whoever reads it clears it.

    Args:
        replica: its number in the records: that of its replica, or where replicas have several ranks its own.
        setup: how it serves.
        paths: the futures of the requests.
        recorder: where it writes.
        rounds: its rounds, where others than itself time them.
    """

    def __init__(
        self, replica: int, setup: RankSetup, paths: Paths, recorder: Recorder, rounds: Verification | None = None
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.partial: Sequence | None = None
        self.ended: list[int] = []
        self.steps = 0
        rule = paths.rule
        self.batch = Batch(setup.drafts if rule.ragged else 0, rule.trailing_rounds)
        self.rounds = rounds or Verification(setup, paths)
        self.pool = Pool(setup.kv, setup.block_ids, setup.drop_last_hit)
        self._replica = replica
        self._scheduler = setup.scheduler
        self._max_block_steps = setup.max_block_steps
        self._planned_ahead = setup.planned_ahead
        self._paths = paths
        self._recorder = recorder
        self._decoded = False
        self._last_seen = 0

    @property
    def ranks(self) -> list[Rank]:
        """Itself, as a group has several."""
        return [self]

    def __len__(self) -> int:
        """Requests it holds, waiting ones included."""
        return len(self.waiting) + len(self.batch) + (self.partial is not None)

    def receive(self, sequence: Sequence, block: Block | None, now: int) -> None:
        """A request arrives; `block`, the one under way, is cut where it could be admitted next."""
        scheduler = self._scheduler
        scheduler.place(self.waiting, sequence)
        if block is None:
            ahead = self._planned_ahead if self.batch or self.partial is not None else 0
            sequence.seen = self._last_seen = self.steps + ahead
            return
        heeded = scheduler.heeds_arrival(self.waiting, sequence, len(self.batch.sequences))
        steps, end = block.steps, block.end
        if steps > 1 and (heeded or self._planned_ahead):
            steps, end = self.rounds.pace(self.batch).first_end(self.batch.step, block, now)
        sequence.seen = self._last_seen = self.steps + steps + self._planned_ahead
        if heeded:
            block.steps, block.end = steps, end

    def plan(self, now: int) -> Block | None:
        """The next block from tick `now` on, or None when there is nothing to run."""
        batch, partial = self.batch, self.partial
        if self.rounds.changes and self.rounds.choose(batch):
            self._switch_paths()
        preempted = self._preempt_until_fits() if self.pool.crowded(batch, partial, self.steps) else False
        if self.waiting or partial is not None:
            chunks = self._chunks(preempted)
            if chunks:
                return self._plan_prefill(now, chunks)
        if not batch.sequences:
            return self._plan_nothing(now)
        steps = self._steady_steps(preempted)
        end = now + self.rounds.pace(batch).elapsed(batch.step, steps)
        drafts, decoding = self.rounds.drafts, len(batch.sequences)
        return Block(now, end, steps, decoding, drafts, [], _NO_PREFILL, len(self.waiting))

    def commit(self, block: Block) -> None:
        """The block is over: advance, record, let go of what finished."""
        batch, steps = self.batch, block.steps
        ledger, step = batch.ledger, batch.step
        self.steps += steps
        needed, moments = ledger.blocks(step), block.moments
        verified = total = emitted = 0
        if self._recorder.keep_steps:
            self._record_steps(block)
        if self.pool.content is not None and not block.chunks:
            self.pool.reach(needed if steps == 1 else ledger.blocks(step + steps - 1))
        if block.decoding:
            verified = self.rounds.verified(batch, block)
            cached, _, total = ledger.span(step, steps)
            done, left = batch.advance(steps)
            emitted = ledger.cached(batch.step) - cached
            for sequence in left:
                emitted += sequence.prompt_tokens + sequence.output_tokens - 1
            if done:
                self._finish_all(done, block.end)
            self._decoded = bool(batch.sequences)
            if self.rounds.changes:
                self.rounds.observe(block, emitted)
        if block.chunks:
            self._commit_chunks(block)
        self._recorder.block((
            self._replica, block.start, block.end, steps, block.decoding, block.drafts, verified, total,
            *moments, emitted + moments[4], block.waiting, needed,
        ))  # fmt: skip

    def _record_steps(self, block: Block) -> None:
        """One row per step of a block that is about to be committed."""
        batch = self.batch
        if block.steps == 1:
            self._recorder.step(batch.cached if block.decoding else 0, block.end - block.start)
            return
        context = batch.ledger.contexts(batch.step, block.steps)
        self._recorder.steps(context, self.rounds.pace(batch).each(batch.step, context))

    def _switch_paths(self) -> None:
        """The draft length has changed: the running sequences go on by other paths."""
        batch = self.batch
        for sequence in list(batch.sequences.values()):
            if not sequence.finished:
                sequence.record_rounds(batch.step - sequence.joined, self._recorder)
                emitted = sequence.emitted_before(batch.step)
                batch.leave(sequence)
                sequence.emitted = emitted
                batch.join(sequence, self._paths.rest(sequence.request, emitted, self.rounds.drafts))

    def _chunks(self, preempted: bool) -> list[Chunk]:
        """Prefill of the coming step; a step that preempted admits nobody (vLLM V1)."""
        if preempted and self.partial is None:
            return []
        used = self.pool.used(self.batch, self.partial, self.steps)
        self.pool.evict(used, self.steps)
        free = self.pool.kv.blocks - used
        return self._scheduler.chunks(() if preempted else self._visible(), self._room(free))

    def _visible(self) -> Iterable[Sequence]:
        """Waiting requests that the planning of the coming step has seen."""
        if not self._planned_ahead or self._last_seen <= self.steps:
            return self.waiting
        return (sequence for sequence in self.waiting if sequence.seen <= self.steps)

    def _room(self, free_blocks: int) -> Room:
        decoding = len(self.batch.sequences)
        tokens = decoding * self.rounds.width if self._scheduler.mixes else 0
        decoding += self.pool.held_sequences(self.steps)
        return Room(decoding, tokens, self.partial, free_blocks, self.pool, self._decoded, self.batch)

    def _plan_prefill(self, now: int, chunks: list[Chunk]) -> Block:
        """One step with these chunks; admission happens here, so that nothing can come between plan and step."""
        new = history = pairs = completed = 0
        waiting = self.waiting
        for sequence, tokens, hit_tokens in chunks:
            if sequence is not self.partial:
                if sequence is waiting[0]:
                    waiting.popleft()
                else:
                    waiting.remove(sequence)
                self.pool.admit(sequence, hit_tokens)
                self._recorder.hit_tokens[sequence.request] += hit_tokens
            new += tokens
            history += sequence.prefilled
            pairs += tokens * sequence.prefilled + tokens * (tokens + 1) // 2
            completed += tokens == sequence.unfilled_tokens
        if self.pool.content is not None:
            used = self.pool.used(self.batch, None, self.steps) + self.pool.chunk_blocks(chunks)
            self.pool.evict(used, self.steps)
        moments = (len(chunks), new, history, pairs, completed)
        decoding = len(self.batch.sequences) if self._scheduler.mixes else 0
        ticks = self.rounds.prefill_ticks(self.batch, decoding, moments)
        return Block(now, now + ticks, 1, decoding, self.rounds.drafts, chunks, moments, len(waiting))

    def _plan_nothing(self, now: int) -> Block | None:
        """Nothing runs: who waits has not been seen yet or waited for a batch that is gone, or else can never run."""
        decoded, self._decoded = self._decoded, False
        if not self.waiting:
            return None
        newest = max(sequence.seen for sequence in self.waiting)
        if newest > self.steps or decoded or self.pool.held_sequences(self.steps):
            self.steps = max(newest, self.steps + 1)
            return self.plan(now)
        return None

    def _steady_steps(self, preempted: bool) -> int:
        """Steps until a sequence finishes, the pool runs dry or somebody is seen; at least 1, for this step fits."""
        batch = self.batch
        steps = min(batch.next_end() - batch.step, self._max_block_steps)
        if preempted or (self.waiting and self.pool.held_sequences(self.steps)):
            return 1
        if self._planned_ahead and self._last_seen > self.steps and self.waiting:
            ahead = (sequence.seen - self.steps for sequence in self.waiting)
            steps = min([steps, *(later for later in ahead if later > 0)])
        if batch.most_blocks > self.pool.kv.blocks:
            steps = batch.ledger.steps_within(batch.step, steps, self.pool.most_blocks)
        return self.rounds.steps(batch, steps) if self.rounds.changes else steps

    def _preempt_until_fits(self) -> bool:
        """Preempt until the coming step's KV fits; the sequence is computed again later (vLLM V1)."""
        preempted = False
        blocks = self.pool.kv.blocks
        while self.pool.crowded(self.batch, self.partial, self.steps) and self._needed_blocks() > blocks:
            self._preempt()
            preempted = True
        return preempted

    def _needed_blocks(self) -> int:
        """KV blocks of the coming step before anybody is admitted, the next piece of a partial prefill included."""
        needed, partial, kv = self.pool.used(self.batch, self.partial, self.steps), self.partial, self.pool.kv
        if partial is not None:
            tokens = sum(chunk.tokens for chunk in self._scheduler.chunks((), self._room(kv.blocks)))
            needed += kv.blocks_for(partial.prefilled + tokens) - kv.blocks_for(partial.prefilled)
        return needed

    def _preempt(self) -> None:
        """The last sequence admitted, or the policy's choice, gives its blocks back and heads the queue."""
        if self.partial is not None:
            sequence, self.partial = self.partial, None
            self.pool.free(sequence, sequence.prefilled)
        else:
            sequence = self._scheduler.victim(self.batch)
            if not sequence.finished:
                sequence.record_rounds(self.batch.step - sequence.joined, self._recorder)
            self.batch.leave(sequence)
            if sequence.finished:
                return
            self.pool.free(sequence, sequence.prompt_tokens + sequence.emitted_before(self.batch.step) - 1)
        sequence.preempt(self.batch.step)
        self._recorder.preemptions[sequence.request] += 1
        self.waiting.appendleft(sequence)

    def _commit_chunks(self, block: Block) -> None:
        """Advance the prefill of the block's chunks."""
        admitted = self._recorder.admitted
        for sequence, tokens, _ in block.chunks:
            if admitted[sequence.request] < 0:
                admitted[sequence.request] = block.start
            sequence.prefilled += tokens
            self.pool.fill(sequence, sequence.prefilled)
            self.partial = sequence if sequence.unfilled_tokens else None
            if self.partial is None:
                self._start_decoding(sequence, block.end)

    def _start_decoding(self, sequence: Sequence, now: int) -> None:
        """The prefill is complete and has emitted a token."""
        request = sequence.request
        sequence.emitted += 1
        if sequence.emitted == 1:
            self._recorder.first_token[request] = now
        if sequence.emitted == sequence.output_tokens:
            self._finish(sequence, now)
        else:
            self.batch.join(sequence, self.rounds.path(sequence))

    def _finish_all(self, finished: list[Sequence], now: int) -> None:
        """Requests whose last token came with a round; without trailing rounds they hold slots and blocks on."""
        for sequence in finished:
            assert sequence.path is not None
            sequence.record_rounds(sequence.path.rounds - self._paths.rule.trailing_rounds, self._recorder)
            self._finish(sequence, now)
        if self._planned_ahead and not self._paths.rule.trailing_rounds:
            self.pool.hold(self.steps, finished)

    def _finish(self, sequence: Sequence, now: int) -> None:
        sequence.finished = True
        self.ended.append(sequence.request)
        self._recorder.finish[sequence.request] = now
        self._recorder.replica[sequence.request] = self._replica
        self.pool.free(sequence, sequence.prompt_tokens + sequence.output_tokens - 1)
