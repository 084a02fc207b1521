"""The running sequences of a rank on its own step axis: who runs, what they hold, who ends next."""

from __future__ import annotations

from heapq import heappop, heappush

from sim.serving.ledger import Ledger
from sim.serving.paths import Path
from sim.serving.sequence import Sequence


class Batch:
    """The decoding sequences, in order of admission.

    Attributes:
        step: rounds the rank has run; a path's rounds lie on this axis.
        sequences: by request id.
        ledger: sums over them at every coming step.
        most_blocks: KV blocks of everybody's last round together; while they fit, the pool cannot run dry.

    Args:
        most_drafts: longest draft where rounds may differ in width, else 0.
        trailing_rounds: rounds at the end of every path that emit nothing: the request has finished before.
    """

    def __init__(self, most_drafts: int = 0, trailing_rounds: int = 0) -> None:
        self.step = 0
        self.sequences: dict[int, Sequence] = {}
        self.ledger = Ledger(most_drafts)
        self.most_blocks = 0
        self._trailing_rounds = trailing_rounds
        self._joins = 0
        self._place: dict[int, int] = {}  # an entry of `_ends` with another place: it left since, or changed its path
        self._ends: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def cached(self) -> int:
        """Cached tokens before the coming round."""
        return self.ledger.cached(self.step)

    @property
    def blocks(self) -> int:
        """KV blocks that the coming round needs."""
        return self.ledger.blocks(self.step)

    def join(self, sequence: Sequence, path: Path) -> None:
        """`sequence` runs the rounds of `path` from now on."""
        sequence.path, sequence.joined = path, self.step
        self.ledger.join(self.step, path)
        self.most_blocks += path.most_blocks
        request = sequence.request
        self.sequences[request] = sequence
        self._joins += 1
        self._place[request] = self._joins
        end = self.step + path.rounds
        heappush(self._ends, (end, self._joins, request))
        if self._trailing_rounds:
            heappush(self._ends, (end - self._trailing_rounds, self._joins, request))

    def leave(self, sequence: Sequence) -> None:
        """`sequence` stops before its end."""
        path = sequence.path
        assert path is not None
        self.ledger.leave(self.step, path, self.step - sequence.joined)
        self.most_blocks -= path.most_blocks
        del self.sequences[sequence.request], self._place[sequence.request]

    def next_end(self) -> int:
        """Step before which the next of them finishes or leaves; there must be one."""
        ends = self._ends
        while ends[0][0] <= self.step or self._place.get(ends[0][2]) != ends[0][1]:
            heappop(ends)
        return ends[0][0]

    def advance(self, steps: int) -> tuple[list[Sequence], list[Sequence]]:
        """`steps` rounds are over: who has finished in the last of them, and who leaves, in order of admission."""
        self.step = now = self.step + steps
        finished: list[Sequence] = []
        left: list[Sequence] = []
        ends = self._ends
        while ends and ends[0][0] <= now:
            step, place, request = heappop(ends)
            if self._place.get(request) != place:
                continue
            sequence = self.sequences[request]
            if not sequence.finished:
                sequence.finished = True
                finished.append(sequence)
            if not self._trailing_rounds or step == sequence.ends:
                path = sequence.path
                assert path is not None
                del self.sequences[request], self._place[request]
                self.ledger.end(step, path)
                self.most_blocks -= path.most_blocks
                left.append(sequence)
        return finished, left
