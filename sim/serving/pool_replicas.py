"""The replicas of disaggregated serving as processes: those that only prefill, those that only decode."""

from __future__ import annotations

from sim.serving.clock import STEP_END, at, tick
from sim.serving.decode_rank import DecodeRank
from sim.serving.prefill_rank import PrefillRank
from sim.serving.rank_replica import RankReplica
from sim.serving.sequence import Sequence


class PrefillReplica(RankReplica[PrefillRank]):
    """A Replica whose blocks are freed from outside."""

    def sent(self, request: int) -> None:
        """Nobody needs the blocks of `request` any more."""
        self.rank.sent(request)
        if self._block is None:
            self.rank.free_sent()
            if self.rank.waiting:
                self._wake()


class DecodeReplica(RankReplica[DecodeRank]):
    """A Replica that is told when KV arrives."""

    def arrive(self, request: int) -> None:
        """The KV of `request` arrives now."""
        now, block = tick(self._env), self._block
        end = block.end if block is not None else now
        self.rank.arrive(request, block, now)
        if block is None:
            self._wake()
        elif block.end != end:
            self._move_alarm(at(self._env, block.end, STEP_END))

    def forget(self, sequence: Sequence) -> None:
        """`sequence`, which is here but does not run yet, is gone now."""
        self.rank.forget(sequence)
        if self._counts_tokens:
            self.tokens -= sequence.prefill_tokens
        if self._block is None:
            self._wake()
        else:
            self._cut()

    def withdraw(self, sequence: Sequence) -> bool:
        """As in Replica; who waits for a slot is gone at once too."""
        if sequence not in self.rank.received:
            return RankReplica.withdraw(self, sequence)
        self.rank.forget(sequence)
        if self._block is not None:
            self._cut()
        return True

    def die(self, successor: DecodeRank) -> list[Sequence]:
        """As in Replica."""
        rank = self.rank
        pending = [*rank.incoming, *rank.coming.values(), *rank.received]
        return sorted([*RankReplica.die(self, successor), *pending], key=lambda sequence: sequence.request)
