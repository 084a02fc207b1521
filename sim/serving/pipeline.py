"""Pipeline parallelism: as many batches in flight as stages, from one queue and one KV pool.

Mirrors vLLM V1 (`EngineCore.step_with_batch_queue`). While fewer batches are in flight than there are stages, the
scheduler makes another of whoever is in none of them; then the engine waits for the oldest batch, and requests that
arrive meanwhile wait with it. Who has decoded in one batch comes back together in the next, so sequences stay in the
*lane* that their prompt ended in, and a lane is a rank that shares queue and pool with the others. The chunks of one
prompt follow each other through the stages without a gap.

Not modelled: a lane preempts its own sequences, never those of a batch in flight; under asynchronous scheduling the
host's work is not hidden (vLLM then keeps as many batches in flight, vllm-project/vllm#32359).
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from sim.metrics.record import Recorder
from sim.serving.batch import Batch
from sim.serving.block import Block
from sim.serving.lockstep import UntimedRounds
from sim.serving.paths import Paths
from sim.serving.pool import Pool
from sim.serving.rank import Rank
from sim.serving.removal import evacuate
from sim.serving.sequence import Sequence
from sim.serving.setup import RankSetup


class StagePrices(Protocol):
    """What a pipeline asks a cost model."""

    def stages(self, sequences: int, context_tokens: int, moments: tuple[int, int, int, int, int]) -> list[int]:
        """Ticks of one batch in each stage; arguments as in `RankLoad`."""

    def send(self, tokens: int) -> int:
        """Ticks from one stage to the next for the activations of so many tokens."""


class Pipeline:
    """Lanes of one replica.

    Attributes:
        ranks: the lanes.
        waiting: their queue.
        flight: lanes whose batch is in flight, the oldest first.
        ended: requests that have finished; whoever reads it clears it.

    Args:
        setup: how each lane serves.
        paths: the futures of the requests.
        recorder: where they write.
        first: number of the first lane.
        lanes: as many as stages.
        prices: stage times.
    """

    def __init__(
        self, setup: RankSetup, paths: Paths, recorder: Recorder, first: int, lanes: int, prices: StagePrices
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.flight: deque[tuple[Lane, Block]] = deque()
        self.ended: list[int] = []
        self.ranks = [Lane(self, first + i, setup, paths, recorder) for i in range(lanes)]
        for lane in self.ranks[1:]:
            lane.pool.content = self.ranks[0].pool.content
        self._setup = setup
        self._prices = prices
        self._recorder = recorder
        self._free = [0] * lanes

    def receive(self, sequence: Sequence, block: Block | None, now: int) -> None:
        """A request arrives; no batch in flight heeds it."""
        self._setup.scheduler.place(self.waiting, sequence)

    def plan(self, now: int) -> Block | None:
        """Send batches off from tick `now` on; returns the oldest in flight, None when there is none."""
        while len(self.flight) < len(self.ranks):
            lane = self._next_lane()
            block = lane.plan(now)
            self.share(lane.partial)
            if block is None:
                break
            block.end = self._through(now, lane, block)
            self.flight.append((lane, block))
        return self.flight[0][1] if self.flight else None

    def commit(self, block: Block) -> None:
        """The oldest batch is through."""
        lane, _ = self.flight.popleft()
        lane.commit(block)
        self.ended += lane.ended
        lane.ended.clear()

    def share(self, partial: Sequence | None) -> None:
        """The sequence whose prefill is under way, between two batches, is that of every lane."""
        for lane in self.ranks:
            lane.partial = partial

    def in_flight(self, sequence: Sequence) -> Lane | None:
        """A lane whose batch in flight has it."""
        for lane, block in self.flight:
            if block.decoding and sequence.request in lane.batch.sequences:
                return lane
            if any(chunk.sequence is sequence for chunk in block.chunks):
                return lane
        return None

    def lane_of(self, sequence: Sequence) -> Lane:
        """The lane it decodes in; the first while it does not."""
        return next((lane for lane in self.ranks if sequence.request in lane.batch.sequences), self.ranks[0])

    def evacuated(self) -> list[Sequence]:
        """All that it holds when it dies, in order of number; what is in flight is lost."""
        blocks = dict(self.flight)
        held = {}
        for lane in self.ranks:
            held.update({seq.request: seq for seq in evacuate(lane, blocks.get(lane), self._recorder)})
        return [held[request] for request in sorted(held)]

    def _next_lane(self) -> Lane:
        """The lane whose batch is just through; if it has nothing to decode, any that is free."""
        busy = [lane for lane, _ in self.flight]
        free = [lane for lane in self.ranks if lane not in busy]
        return next((lane for lane in free if lane.batch.sequences), free[0])

    def _through(self, now: int, lane: Lane, block: Block) -> int:
        """When a batch that starts at tick `now` at the earliest is through all stages."""
        context = lane.batch.cached if block.decoding else 0
        ticks = self._prices.stages(block.decoding, context, block.moments)
        send = self._prices.send(block.decoding + block.moments[1])
        for stage, duration in enumerate(ticks):
            now = self._free[stage] = max(now + (send if stage else 0), self._free[stage]) + duration
        return now


class Lane(Rank):
    """The sequences that decode in one batch.

    Attributes:
        completing: sequences whose last chunk is in flight.
    """

    def __init__(self, pipeline: Pipeline, number: int, setup: RankSetup, paths: Paths, recorder: Recorder) -> None:
        self._pipeline = pipeline
        self.completing: list[Sequence] = []
        Rank.__init__(self, number, setup, paths, recorder, UntimedRounds(setup, paths))
        self.waiting = pipeline.waiting
        self.pool = LanePool(self, pipeline, setup)
        self._filled: list[int] = []

    def plan(self, now: int) -> Block | None:
        """The coming batch; the next one may go on with the prompt that it leaves unfinished."""
        block = Rank.plan(self, now)
        self._filled = []
        for sequence, tokens, _ in block.chunks if block is not None else ():
            sequence.prefilled += tokens
            self._filled.append(sequence.prefilled)
            if sequence.unfilled_tokens:
                self.partial = sequence
            else:
                self.completing.append(sequence)
                self.partial = None if sequence is self.partial else self.partial
        return block

    def _preempt_until_fits(self) -> bool:
        preempted, most = False, self.pool.kv.blocks
        while self._needed_blocks() > most and (self.batch.sequences or self._partial_rests()):
            self._preempt()
            preempted = True
        return preempted

    def _preempt(self) -> None:
        """A prompt in flight stays."""
        if self.partial is None or self._partial_rests():
            Rank._preempt(self)
            return
        resting, self.partial = self.partial, None
        Rank._preempt(self)
        self.partial = resting

    def _partial_rests(self) -> bool:
        return self.partial is not None and self._pipeline.in_flight(self.partial) is None

    def _chunks(self, preempted: bool) -> list:  # type: ignore[type-arg]
        """None where the next piece of the prompt in flight does not fit."""
        if self._needed_blocks() > self.pool.kv.blocks:
            return []
        return Rank._chunks(self, preempted)

    def _plan_nothing(self, now: int) -> Block | None:
        self._decoded = False
        return None

    def _commit_chunks(self, block: Block) -> None:
        for (sequence, _, _), filled in zip(block.chunks, self._filled, strict=True):
            if self._recorder.admitted[sequence.request] < 0:
                self._recorder.admitted[sequence.request] = block.start
            self.pool.fill(sequence, filled)
            if filled == sequence.prefill_tokens:
                self.completing.remove(sequence)
                self._start_decoding(sequence, block.end)


class LanePool(Pool):
    """A lane's view of the pool: what the others hold is in use."""

    def __init__(self, lane: Lane, pipeline: Pipeline, setup: RankSetup) -> None:
        Pool.__init__(self, setup.kv, setup.block_ids, setup.drop_last_hit)
        self._lane, self._pipeline = lane, pipeline

    def held_sequences(self, steps: int) -> int:
        """Sequences of the other lanes."""
        return sum(len(lane.batch) + len(lane.completing) for lane in self._others())

    def used(self, batch: Batch, partial: Sequence | None, steps: int) -> int:
        """With those of the other lanes."""
        held = 0
        for lane in self._others():
            held += lane.batch.blocks if lane.batch.sequences else 0
            held += sum(self.kv.blocks_for(sequence.prefilled) for sequence in lane.completing)
        return Pool.used(self, batch, partial, steps) + held

    def crowded(self, batch: Batch, partial: Sequence | None, steps: int) -> bool:
        """Always asked to look closer."""
        return True

    def _others(self) -> list[Lane]:
        return [lane for lane in self._pipeline.ranks if lane is not self._lane]
