"""Paths: what a sequence does round by round, known when it is admitted.

What a request emits under its draft length depends on nobody else, so its rounds, the context before each and the
KV blocks each needs are drawn for hundreds of requests at a time. A round that starts with e tokens emitted has
prompt + e - 1 tokens cached (the last emitted token is not computed yet) and emits min(d(e), drafts) + 1 tokens,
cut at the request's output.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.draws import derive, key
from sim.request import Requests
from sim.speculation.acceptance import Acceptance
from sim.speculation.length import Offers
from sim.speculation.request_length import RequestLength

_CHUNK_REQUESTS = 1024
_CHUNK_TOKENS = 1 << 19
_CHUNKS_KEPT = 16
_STEPS_BETWEEN_EXITS = 16

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundRule:
    """What decides a sequence's rounds.

    Attributes:
        acceptance: acceptable depths; None without SD.
        width: drafts -> query tokens of a round.
        lookahead_tokens: extra KV slots an engine reserves per sequence and round.
        request_length: the lengths of requests that choose their own; the batch's otherwise.
        offers: of a drafter that may propose fewer tokens than asked for; None for the others.
        trailing_rounds: rounds planned before the last result is known, which emit nothing.
    """

    acceptance: Acceptance | None = None
    width: Callable[[int], int] = lambda drafts: drafts + 1
    lookahead_tokens: int = 0
    request_length: RequestLength | None = None
    offers: Offers | None = None
    trailing_rounds: int = 0

    @property
    def ragged(self) -> bool:
        """Whether rounds of one batch may differ in width."""
        return self.request_length is not None or self.offers is not None


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """The rounds of several requests, one after the other.

    Attributes:
        sums: cached tokens before every round, summed up from the first on; one entry more than there are rounds.
        blocks: KV blocks that each round needs, drafts and lookahead included.
        accepted: draft tokens accepted (not cut at the output's end, as engines count them), summed up like `sums`.
        drafted: draft tokens verified, summed up like `sums`.
        at_least: row j - 1 says (1 or 0) which rounds verify j drafts or more; None unless rounds are ragged.
    """

    sums: Counts
    blocks: Counts
    accepted: Counts
    drafted: Counts
    at_least: Counts | None = None


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

    def blocks(self, done: int) -> Counts:
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
        self._requests = requests
        self._block_tokens = block_tokens
        self._key = key(seed, "acceptance")
        mean_tokens = int(requests.output_tokens.mean()) if len(requests) else 0
        self._chunk_requests = max(1, min(_CHUNK_REQUESTS, _CHUNK_TOKENS // (mean_tokens + 1)))
        self._chunks: OrderedDict[tuple[int, int], tuple[list[int], Rounds]] = OrderedDict()

    def first(self, request: int, drafts: int) -> Path:
        """The path of `request` from its first token (which the prefill emits) to its end, `drafts` per round."""
        index, row = divmod(request, self._chunk_requests)
        chunk = self._chunks.get((index, drafts))
        if chunk is None:
            low = index * self._chunk_requests
            ids = np.arange(low, min(low + self._chunk_requests, len(self._requests)))
            chunk = self._chunks[index, drafts] = self._draw(ids, np.ones(len(ids), dtype=np.int64), drafts)
            if len(self._chunks) > _CHUNKS_KEPT:
                self._chunks.popitem(last=False)
        bounds, rounds = chunk
        return Path(rounds, bounds[row], bounds[row + 1])

    def rest(self, request: int, emitted: int, drafts: int) -> Path:
        """The path of `request` when `emitted` tokens are out already."""
        bounds, rounds = self._draw(np.array([request]), np.array([emitted]), drafts)
        return Path(rounds, 0, bounds[1])

    def _draw(self, ids: Counts, emitted: Counts, drafts: int) -> tuple[list[int], Rounds]:
        """Bounds of each request's rounds among those of all of them, and the latter."""
        rule = self.rule
        left = np.maximum(self._requests.output_tokens[ids] - emitted, 0)
        slots = left + np.where(left > 0, rule.trailing_rounds, 0)
        starts = np.cumsum(slots) - slots
        cached = np.arange(int(slots.sum()))
        cached += np.repeat(self._requests.prompt_tokens[ids] + emitted - 1 - starts, slots)
        if rule.acceptance is None or not (drafts or rule.request_length is not None):
            none = np.broadcast_to(np.int64(0), len(cached) + 1)
            return [0, *(starts + slots).tolist()], self._rounds(cached, none[1:], none, none)
        position = cached - np.repeat(self._requests.prompt_tokens[ids] - 1, slots)
        keys = np.repeat(derive(self._key, ids), slots)
        most = rule.request_length.most_drafts if rule.request_length is not None else drafts
        accepted = rule.acceptance.depths(keys, position, most, self._requests, np.repeat(ids, slots))
        offered = np.full(len(cached), drafts)
        if rule.offers is not None:
            offered = rule.offers(keys, position, drafts)
            accepted = np.minimum(accepted, offered)
        visited = _walk(accepted, offered, starts, left, rule)
        if rule.trailing_rounds:
            accepted[position >= np.repeat(self._requests.output_tokens[ids], slots)] = 0
        bounds = [0, *np.searchsorted(visited, starts + slots).tolist()]
        offered, accepted = offered[visited], accepted[visited]
        return bounds, self._rounds(cached[visited], offered, _summed(accepted), _summed(offered))

    def _rounds(self, cached: Counts, offered: Counts, accepted: Counts, drafted: Counts) -> Rounds:
        """From what is cached before every round, the drafts it verifies, and the two sums."""
        rule = self.rule
        if not rule.ragged:
            width: int | Counts = rule.width(int(offered[0])) if len(offered) else 1
            at_least = None
        else:
            width = offered + 1
            longest = int(offered.max()) if len(offered) else 0
            at_least = (offered >= np.arange(1, longest + 1)[:, None]).astype(np.int64)
        blocks = cached + (width + rule.lookahead_tokens + self._block_tokens - 1)
        blocks //= self._block_tokens
        return Rounds(_summed(cached), blocks, accepted, drafted, at_least)


def _summed(values: Counts) -> Counts:
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _walk(accepted: Counts, offered: Counts, starts: Counts, left: Counts, rule: RoundRule) -> Counts:
    """Positions at which a round starts, all requests in step; a request's own lengths are written into `offered`."""
    starts_round = np.zeros(len(accepted) + 1, dtype=np.bool_)
    alive = left > 0
    first, ends = starts[alive], (starts + left)[alive]
    if rule.request_length is None:
        _step_on(starts_round, first, ends, accepted)
    else:
        _choose_on(starts_round, first, ends, accepted, offered, rule.request_length)
    for trailing in range(rule.trailing_rounds):
        starts_round[ends + trailing] = True
    return np.flatnonzero(starts_round[:-1])


def _step_on(starts_round: NDArray[np.bool_], at: Counts, ends: Counts, accepted: Counts) -> None:
    """Mark every round; whoever is through waits behind the last position, and is let go now and then."""
    nowhere = len(accepted)
    following = np.arange(1, nowhere + 2)
    following[:-1] += accepted
    last = np.zeros(nowhere + 1, dtype=np.int64)
    last[at] = ends
    np.maximum.accumulate(last, out=last)
    following[following >= last] = nowhere
    while at.size:
        for _ in range(_STEPS_BETWEEN_EXITS):
            starts_round[at] = True
            at = following[at]
        at = at[at < nowhere]


def _choose_on(
    starts_round: NDArray[np.bool_], at: Counts, end: Counts, accepted: Counts, offered: Counts, own: RequestLength
) -> None:
    """`_step_on` where every request chooses its own lengths as it goes."""
    state = own.first(len(at))
    while at.size:
        starts_round[at] = True
        offered[at] = own.drafts(state, accepted[at])
        accepted[at] = np.minimum(accepted[at], offered[at])
        state = own.next(state, offered[at], accepted[at])
        at = at + accepted[at] + 1
        inside = at < end
        at, end, state = at[inside], end[inside], state[inside]
