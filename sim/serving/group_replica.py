"""A replica of several attention ranks in lockstep, as a process."""

from __future__ import annotations

from sim.metrics.record import NOT_YET, Recorder
from sim.serving.clock import STEP_END, Environment, Event, at, tick
from sim.serving.group import GroupBlock, RankGroup
from sim.serving.removal import remove
from sim.serving.replica import Home, Replica
from sim.serving.sequence import Sequence


class GroupReplica(Replica[RankGroup, GroupBlock]):
    """`Replica` of a group; its process is the same, a block is one of the group.

    Attributes:
        tokens: prompt tokens of the requests it holds, less tokens out of those it held; the group adds what is out.

    Args:
        env, number, recorder, settle: as for Replica.
        group: at the start.
    """

    def __init__(self, env: Environment, number: int, group: RankGroup, recorder: Recorder, *, settle: bool) -> None:
        Replica.__init__(self, env, number, group, recorder, settle=settle, counts_tokens=False)
        self._rank_of: dict[int, int] = {}

    def receive(self, sequence: Sequence) -> None:
        """A request arrives now."""
        self.tokens += sequence.prefill_tokens
        Replica.receive(self, sequence)

    def withdraw(self, sequence: Sequence) -> bool:
        """As in Replica."""
        group, rank = self.rank, self.rank.place_of(sequence.request)
        waiting = group.ranks[rank].waiting
        if sequence not in waiting:
            self._leaving.append(sequence)
            self._rank_of[sequence.request] = rank
            self._stop(rank)
            return False
        waiting.remove(sequence)
        group.forget(sequence.request)
        if waiting and self._block is None:
            self._wake()
        elif waiting:
            self._stop(rank)
        return True

    def die(self, successor: RankGroup) -> list[Sequence]:
        """As in Replica, for all ranks at once."""
        if self._block is not None:
            self._block = None
            self._move_alarm(Event(self._env))
        held = self.rank.evacuated(tick(self._env))
        self.rank, self.tokens, self._leaving = successor, 0, []
        return held

    def tokens_at(self, time: int) -> int:
        """As in Replica."""
        return self.tokens + self.rank.tokens + self.rank.emitted_before(time)

    def prefix_hit_at(self, time: int, sequence: Sequence) -> int:
        """No router may ask: which rank will take the request it cannot know."""
        raise NotImplementedError

    def _let_go(self, home: Home) -> None:
        leaving, self._leaving = self._leaving, []
        group, recorder = self.rank, self._recorder
        emitted = []
        for sequence in leaving:
            request = sequence.request
            emitted.append(remove(group.ranks[self._rank_of.pop(request)], sequence, recorder))
            if recorder.finish[request] != NOT_YET:
                group.ended.remove(request)
                recorder.finish[request] = NOT_YET
            else:
                group.forget(request)
            if recorder.first_token[request] >= recorder.cancelled[request]:
                recorder.first_token[request] = NOT_YET
        home.left(self._number, leaving, emitted)

    def _stop(self, rank: int) -> None:
        """Rank `rank` plans anew after the step under way."""
        block = self._block
        if block is None:
            return
        end = block.end
        self.rank.stop(rank, block, tick(self._env))
        if block.end != end:
            self._move_alarm(at(self._env, block.end, STEP_END))
