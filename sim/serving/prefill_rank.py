"""A rank that only prefills: it hands a request over with its first token, and keeps the blocks until they are sent."""

from __future__ import annotations

from collections.abc import Callable

from sim.metrics.record import Recorder
from sim.serving.batch import Batch
from sim.serving.block import Block
from sim.serving.paths import Paths
from sim.serving.pool import Pool
from sim.serving.rank import Rank
from sim.serving.sequence import Chunk, Sequence
from sim.serving.setup import RankSetup


class SendingPool(Pool):
    """A pool some of whose blocks wait to be sent, or to be filled by what is sent.

    Attributes:
        set_aside: how many.
    """

    set_aside = 0

    @property
    def most_blocks(self) -> int:
        """As in Pool, without those."""
        return super().most_blocks - self.set_aside

    def used(self, batch: Batch, partial: Sequence | None, steps: int) -> int:
        """As in Pool, and those."""
        return Pool.used(self, batch, partial, steps) + self.set_aside

    def crowded(self, batch: Batch, partial: Sequence | None, steps: int) -> bool:
        """As in Pool, with those in use."""
        if not self.set_aside:
            return Pool.crowded(self, batch, partial, steps)
        last = batch.most_blocks + (0 if partial is None else self.kv.blocks_for(partial.prefill_tokens))
        return last - batch.blocks + self.used(batch, None, steps) > self.kv.blocks


class PrefillRank(Rank):
    """As vLLM's NIXL connector has it: the prompt's blocks are freed once the other side has read them.

    Its sequences end with the first token they emit; `ended` names them, `sending` holds them.

    Attributes:
        sending: by request, who waits for the other side to have its blocks.

    Args:
        replica, setup, paths, recorder: as for Rank.
        announce: told of each whose prefill will be complete at the end of the step planned now, and when that is.
    """

    def __init__(
        self,
        replica: int,
        setup: RankSetup,
        paths: Paths,
        recorder: Recorder,
        announce: Callable[[Sequence, int], None] | None = None,
    ) -> None:
        Rank.__init__(self, replica, setup, paths, recorder)
        self.pool = self._pool = SendingPool(setup.kv, setup.block_ids, setup.drop_last_hit)
        self.sending: dict[int, Sequence] = {}
        self.announce = announce
        self._sent: list[int] = []
        self._gave_way = False

    def plan(self, now: int) -> Block | None:
        """As in Rank; what was sent is free. A prompt that gave way to what is not sent yet tries again at once."""
        self.free_sent()
        self._gave_way = False
        block = Rank.plan(self, now)
        if block is None and self._gave_way:
            self.steps += 1
            return self.plan(now)
        return block

    def sent(self, request: int) -> None:
        """The other side has the blocks of `request`, or nobody wants them: they are free in the next plan."""
        self._sent.append(request)

    def free_sent(self) -> None:
        """Free the blocks of whatever was sent."""
        sent, self._sent = self._sent, []
        for request in sent:
            sequence = self.sending.pop(request)
            self._pool.set_aside -= self.pool.kv.blocks_for(sequence.prefilled)
            self.pool.free(sequence, sequence.prefilled)

    def _plan_prefill(self, now: int, chunks: list[Chunk]) -> Block:
        block = Rank._plan_prefill(self, now, chunks)
        if self.announce is not None:
            for sequence, tokens, _ in chunks:
                if tokens == sequence.unfilled_tokens:
                    self.announce(sequence, block.end)
        return block

    def _preempt(self) -> None:
        self._gave_way = True
        Rank._preempt(self)

    def _finish(self, sequence: Sequence, now: int) -> None:
        self.ended.append(sequence.request)
        self.sending[sequence.request] = sequence
        self._pool.set_aside += self.pool.kv.blocks_for(sequence.prefilled)
