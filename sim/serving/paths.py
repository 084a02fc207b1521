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
class Path:
    """The rounds of one sequence from some point of its output to its end; arrays have one entry per round.

    Attributes:
        context: cached tokens before the round.
        blocks: KV blocks that the round needs, drafts and lookahead included.
        accepted: draft tokens accepted (not cut at the end of the output, as engines count them).
    """

    context: NDArray[np.int64]
    blocks: NDArray[np.int64]
    accepted: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.context)


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
        self._chunks: OrderedDict[int, tuple[list[int], Path]] = OrderedDict()

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
        bounds, flat = chunk
        low, high = bounds[row], bounds[row + 1]
        return Path(flat.context[low:high], flat.blocks[low:high], flat.accepted[low:high])

    def rest(self, request: int, emitted: int) -> Path:
        """The path of `request` when `emitted` tokens are out already."""
        return self._draw(np.array([request]), np.array([emitted]))[1]

    def _draw(self, ids: NDArray[np.int64], emitted: NDArray[np.int64]) -> tuple[list[int], Path]:
        """Bounds of each request's rounds in the flat path of all of them together, and that path."""
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
            visited, bounds = _walk((accepted + 1).tolist(), starts.tolist(), positions_of.tolist())
            owner, position, accepted = owner[visited], position[visited], accepted[visited]
        context = self._prompt[ids][owner] + position - 1
        blocks = (context + self._reserved + self._block_tokens - 1) // self._block_tokens
        return bounds, Path(context, blocks, accepted)


def _walk(emits: list[int], starts: list[int], lengths: list[int]) -> tuple[list[int], list[int]]:
    """Indices of the positions at which a round starts, and the bounds of each request's own."""
    visited: list[int] = []
    bounds = [0]
    for start, length in zip(starts, lengths, strict=True):
        at, end = start, start + length
        while at < end:
            visited.append(at)
            at += emits[at]
        bounds.append(len(visited))
    return visited, bounds
