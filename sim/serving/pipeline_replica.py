"""A replica of pipeline stages, as a process."""

from __future__ import annotations

from sim.metrics.record import NOT_YET
from sim.serving.block import Block
from sim.serving.clock import Event
from sim.serving.pipeline import Pipeline
from sim.serving.removal import remove
from sim.serving.replica import Home, Replica
from sim.serving.sequence import Sequence


class PipelineReplica(Replica[Pipeline, Block]):
    """`Replica` of a pipeline; its process is the same, a block is the oldest batch in flight."""

    def withdraw(self, sequence: Sequence) -> bool:
        """As in Replica; who is in flight leaves when its batch is through."""
        if sequence not in self.rank.waiting:
            self._leaving.append(sequence)
            return False
        self.rank.waiting.remove(sequence)
        if self.rank.waiting and self._block is None:
            self._wake()
        return True

    def die(self, successor: Pipeline) -> list[Sequence]:
        """As in Replica; all batches in flight are lost."""
        if self._block is not None:
            self._block = None
            self._move_alarm(Event(self._env))
        held = self.rank.evacuated()
        self.rank, self.tokens, self._leaving = successor, 0, []
        return held

    def tokens_at(self, time: int) -> int:
        """As in Replica."""
        return self.tokens

    def prefix_hit_at(self, time: int, sequence: Sequence) -> int:
        """As in Replica."""
        return self.rank.ranks[0].pool.hit_tokens(sequence)

    def _let_go(self, home: Home) -> None:
        pipeline, recorder = self.rank, self._recorder
        leaving = [sequence for sequence in self._leaving if pipeline.in_flight(sequence) is None]
        self._leaving = [sequence for sequence in self._leaving if sequence not in leaving]
        emitted = []
        for sequence in leaving:
            request = sequence.request
            lane = pipeline.lane_of(sequence)
            emitted.append(remove(lane, sequence, recorder))
            pipeline.share(lane.partial)
            if recorder.finish[request] != NOT_YET:
                pipeline.ended.remove(request)
                recorder.finish[request] = NOT_YET
            if recorder.first_token[request] >= recorder.cancelled[request]:
                recorder.first_token[request] = NOT_YET
        if leaving:
            home.left(self._number, leaving, emitted)
