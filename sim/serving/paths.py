"""Paths: what a sequence does round by round, known when it is admitted.

What a request emits under its draft length depends on nobody else, so its rounds, the context before each and the
KV blocks each needs are drawn for hundreds of requests at a time. A round that starts with e tokens emitted has
prompt + e - 1 tokens cached (the last emitted token is not computed yet) and emits min(d(e), drafts) + 1 tokens,
cut at the request's output.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.draws import derive, key
from sim.request import Requests
from sim.speculation.acceptance import Acceptance

_CHUNK_REQUESTS = 512
_CHUNKS_KEPT = 32


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """The rounds of several requests, one after the other.

    Attributes:
        sums: cached tokens before every round, summed up from the first on; one entry more than there are rounds.
        blocks: KV blocks that each round needs, drafts and lookahead included.
        accepted: draft tokens accepted (not cut at the output's end, as engines count them), summed up like `sums`.
    """

    sums: NDArray[np.int64]
    blocks: NDArray[np.int64]
    accepted: NDArray[np.int64]


class Path:
    """The rounds of one sequence from some point of its output to its end: rounds low to high of `rounds`."""

    __slots__ = ("_high", "_low", "_rounds", "last_sum", "most_blocks")

    def __init__(self, rounds: Rounds, low: int, high: int) -> None:
        self._rounds, self._low, self._high = rounds, low, high
        self.last_sum = rounds.sums.item(high)
        self.most_blocks = rounds.blocks.item(high - 1) if high > low else 0

    def __len__(self) -> int:
        return self._high - self._low

    def sums(self, done: int) -> NDArray[np.int64]:
        """Summed-up cached tokens from round `done` on, with the entry behind the last round."""
        return self._rounds.sums[self._low + done : self._high + 1]

    def blocks(self, done: int) -> NDArray[np.int64]:
        """KV blocks of the rounds from `done` on."""
        return self._rounds.blocks[self._low + done : self._high]

    def cached(self, done: int) -> int:
        """Cached tokens before round `done`, which must be one of the path's."""
        at = self._low + done
        return self._rounds.sums.item(at + 1) - self._rounds.sums.item(at)

    def accepted(self, done: int) -> int:
        """Draft tokens accepted in the first `done` rounds."""
        return self._rounds.accepted.item(self._low + done) - self._rounds.accepted.item(self._low)


class Paths:
    """Paths of a request stream under one draft length.

    Args:
        requests: the stream.
        acceptance: distribution of acceptable depths; None without SD.
        drafts: draft tokens per round (0 without SD).
        lookahead: extra KV slots an engine reserves per sequence and round.
        block_tokens: tokens per KV block.
        seed: of the run.
    """

    def __init__(
        self,
        requests: Requests,
        acceptance: Acceptance | None,
        drafts: int,
        lookahead: int,
        block_tokens: int,
        seed: int,
    ) -> None:
        if drafts and acceptance is None:
            raise ValueError(f"{drafts} drafts per round need an acceptance, got none")
        self._prompt = requests.prompt_tokens
        self._output = requests.output_tokens
        self._acceptance = acceptance
        self._drafts = drafts
        self._reserved = drafts + 1 + lookahead
        self._block_tokens = block_tokens
        self._key = key(seed, "acceptance")
        self._chunks: OrderedDict[int, tuple[list[int], Rounds]] = OrderedDict()

    def first(self, request: int) -> Path:
        """The path of `request` from its first token (which the prefill emits) to its end."""
        index, row = divmod(request, _CHUNK_REQUESTS)
        chunk = self._chunks.get(index)
        if chunk is None:
            low = index * _CHUNK_REQUESTS
            ids = np.arange(low, min(low + _CHUNK_REQUESTS, len(self._prompt)))
            chunk = self._chunks[index] = self._draw(ids, np.ones(len(ids), dtype=np.int64))
            if len(self._chunks) > _CHUNKS_KEPT:
                self._chunks.popitem(last=False)
        bounds, rounds = chunk
        return Path(rounds, bounds[row], bounds[row + 1])

    def rest(self, request: int, emitted: int) -> Path:
        """The path of `request` when `emitted` tokens are out already."""
        bounds, rounds = self._draw(np.array([request]), np.array([emitted]))
        return Path(rounds, 0, bounds[1])

    def _draw(self, ids: NDArray[np.int64], emitted: NDArray[np.int64]) -> tuple[list[int], Rounds]:
        """Bounds of each request's rounds among those of all of them, and the latter."""
        positions_of = np.maximum(self._output[ids] - emitted, 0)
        owner = np.repeat(np.arange(len(ids)), positions_of)
        starts = np.cumsum(positions_of) - positions_of
        position = np.arange(len(owner)) - starts[owner] + emitted[owner]
        if self._acceptance is None or self._drafts == 0:
            accepted = np.zeros(len(owner), dtype=np.int64)
            bounds = [0, *np.cumsum(positions_of).tolist()]
        else:
            keys = derive(self._key, ids)[owner]
            accepted = self._acceptance.depths(keys, position, self._drafts)
            visited, bounds = _walk(accepted + 1, starts, positions_of)
            owner, position, accepted = owner[visited], position[visited], accepted[visited]
        context = self._prompt[ids][owner] + position - 1
        blocks = (context + self._reserved + self._block_tokens - 1) // self._block_tokens
        return bounds, Rounds(_summed(context), blocks, _summed(accepted))


def _summed(values: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _walk(
    emits: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """Indices of the positions at which a round starts, and the bounds of each request's own; all requests in step."""
    starts_round = np.zeros(len(emits), dtype=np.bool_)
    ends = starts + lengths
    at, end = starts[lengths > 0], ends[lengths > 0]
    while at.size:
        starts_round[at] = True
        at = at + emits[at]
        inside = at < end
        at, end = at[inside], end[inside]
    visited = np.flatnonzero(starts_round)
    return visited, [0, *np.searchsorted(visited, ends).tolist()]
