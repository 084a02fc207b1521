"""Paths: what a sequence does round by round, known when it is admitted.

What a request emits under its draft length depends on nobody else, so its rounds, the context before each and the
KV blocks each needs are drawn (`sim.serving.rounds`) for hundreds of requests at a time.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from sim.draws import key
from sim.request import Requests
from sim.serving.rounds import Counts, Draw, RoundRule, Rounds

_CHUNK_REQUESTS = 1024
_CHUNK_TOKENS = 1 << 19
_CHUNKS_KEPT = 16


class Path:
    """Rounds `low` to `high` of `drawn`: those of one sequence from some point of its output to its end.

    Attributes:
        rounds: how many.
        last_sum: summed-up cached tokens behind the last of them.
        most_blocks: KV blocks that the last of them needs.
    """

    __slots__ = ("_drawn", "_high", "_low", "last_sum", "most_blocks", "rounds")

    def __init__(self, drawn: Rounds, low: int, high: int) -> None:
        self._drawn, self._low, self._high, self.rounds = drawn, low, high, high - low
        self.last_sum = drawn.sums.item(high)
        self.most_blocks = drawn.blocks.item(high - 1)

    def sums(self, done: int) -> Counts:
        """Summed-up cached tokens from round `done` on, with the entry behind the last round."""
        return self._drawn.sums[self._low + done : self._high + 1]

    def blocks(self, done: int) -> NDArray[np.int32]:
        """KV blocks of the rounds from `done` on."""
        return self._drawn.blocks[self._low + done : self._high]

    def at_least(self, done: int) -> Counts:
        """Which of the rounds from `done` on verify 1, 2, ... drafts or more, a row each."""
        assert self._drawn.at_least is not None
        return self._drawn.at_least[:, self._low + done : self._high]

    def cached(self, done: int) -> int:
        """Cached tokens before round `done`, which must be one of the path's."""
        at = self._low + done
        return self._drawn.sums.item(at + 1) - self._drawn.sums.item(at)

    def accepted(self, done: int) -> int:
        """Draft tokens accepted in the first `done` rounds."""
        return self._drawn.accepted.item(self._low + done) - self._drawn.accepted.item(self._low)

    def drafted(self, done: int) -> int:
        """Draft tokens verified in the first `done` rounds."""
        return self._drawn.drafted.item(self._low + done) - self._drawn.drafted.item(self._low)


class Paths:
    """Paths of a request stream.

    Args:
        requests: the stream.
        rule: what decides its rounds.
        block_tokens: tokens per KV block.
        seed: of the run.
    """

    def __init__(self, requests: Requests, rule: RoundRule, block_tokens: int, seed: int) -> None:
        self.rule = rule
        self._requests = len(requests)
        self._draw = Draw(requests, rule, block_tokens, key(seed, "acceptance"))
        mean_tokens = int(requests.output_tokens.mean()) if len(requests) else 0
        self._chunk_requests = max(1, min(_CHUNK_REQUESTS, _CHUNK_TOKENS // (mean_tokens + 1)))
        self._chunks: OrderedDict[tuple[int, int], tuple[list[int], Rounds]] = OrderedDict()

    def first(self, request: int, drafts: int) -> Path:
        """The path of `request` from its first token (which the prefill emits) to its end, `drafts` per round."""
        index, row = divmod(request, self._chunk_requests)
        chunk = self._chunks.get((index, drafts))
        if chunk is None:
            low = index * self._chunk_requests
            ids = np.arange(low, min(low + self._chunk_requests, self._requests))
            chunk = self._chunks[index, drafts] = self._draw.rounds(ids, np.ones(len(ids), dtype=np.int64), drafts)
            if len(self._chunks) > _CHUNKS_KEPT:
                self._chunks.popitem(last=False)
        bounds, rounds = chunk
        return Path(rounds, bounds[row], bounds[row + 1])

    def rest(self, request: int, emitted: int, drafts: int) -> Path:
        """The path of `request` when `emitted` tokens are out already."""
        bounds, rounds = self._draw.rounds(np.array([request]), np.array([emitted]), drafts)
        return Path(rounds, 0, bounds[1])
