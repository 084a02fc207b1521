"""Rounds: what requests cache, draft and accept round by round, drawn for hundreds of them at a time.

A round that starts with e tokens emitted has prompt + e - 1 tokens cached (the last emitted token is not computed yet)
and emits min(d(e), drafts) + 1 tokens, cut at the request's output. d, the acceptable depth, is drawn for every
position, for which of them start a round is known only then; in pieces, because larger temporaries would come as new
pages of memory each time (7 instead of 14 us per request of 211 tokens).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.draws import Keys, derive
from sim.request import Requests
from sim.speculation.acceptance import Acceptance
from sim.speculation.length import Offers
from sim.speculation.request_length import RequestLength

_PIECE_TOKENS = 1 << 16
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
        blocks: KV blocks that each round needs, drafts and lookahead included; never fewer than the one before.
        accepted: draft tokens accepted (not cut at the output's end, as engines count them), summed up like `sums`.
        drafted: draft tokens verified, summed up like `sums`.
        at_least: row j - 1 says (1 or 0) which rounds verify j drafts or more; None unless rounds are ragged.
    """

    sums: Counts
    blocks: NDArray[np.int32]
    accepted: Counts
    drafted: Counts
    at_least: Counts | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws rounds of a stream.

    Attributes:
        requests: the stream.
        rule: what decides its rounds.
        block_tokens: tokens per KV block.
        key: of the acceptance draws.
    """

    requests: Requests
    rule: RoundRule
    block_tokens: int
    key: Keys

    def rounds(self, ids: Counts, emitted: Counts, drafts: int) -> tuple[list[int], Rounds]:
        """Those of requests `ids` once `emitted` tokens are out of each, and the bounds of each request's in them."""
        rule, prompt = self.rule, self.requests.prompt_tokens[ids]
        left = np.maximum(self.requests.output_tokens[ids] - emitted, 0)
        if rule.acceptance is None or not (drafts or rule.request_length is not None):
            slots = left + np.where(left > 0, rule.trailing_rounds, 0)
            ends = np.cumsum(slots)
            cached = np.arange(int(slots.sum()))
            cached += np.repeat(prompt + emitted - 1 - (ends - slots), slots)
            none = np.broadcast_to(np.int64(0), len(cached) + 1)
            bounds = [0, *ends.tolist()]
            return bounds, self._rounds(cached, none[1:], none, none, bounds)
        stride = left + np.where(left > 0, max(1, rule.trailing_rounds), 0)
        starts = np.cumsum(stride) - stride
        accepted, offered = self._positions(ids, emitted, stride, drafts)
        visited = _walk(accepted, offered, starts, left, rule)
        bounds = [0, *np.searchsorted(visited, starts + stride).tolist()]
        cached = visited + np.repeat(prompt + emitted - 1 - starts, np.diff(bounds))
        counts = offered[visited]
        return bounds, self._rounds(cached, counts, _summed(accepted[visited]), _summed(counts), bounds)

    def _positions(self, ids: Counts, emitted: Counts, stride: Counts, drafts: int) -> tuple[Counts, Counts]:
        """Drafts accepted and drafts offered at `stride` positions of each request."""
        rule, requests = self.rule, self.requests
        assert rule.acceptance is not None
        most = rule.request_length.most_drafts if rule.request_length is not None else drafts
        total = int(stride.sum())
        accepted, offered = np.zeros(total, dtype=np.int64), np.broadcast_to(np.int64(drafts), total)
        if rule.ragged:
            offered = offered.copy()
        at, piece_requests = 0, max(1, _PIECE_TOKENS * len(ids) // max(1, total))
        for low in range(0, len(ids), piece_requests):
            piece = slice(low, low + piece_requests)
            own, slots = ids[piece], stride[piece]
            rows = np.repeat(own, slots)
            position = np.arange(len(rows)) + np.repeat(emitted[piece] - np.cumsum(slots) + slots, slots)
            inside = np.minimum(position, np.repeat(requests.output_tokens[own] - 1, slots))
            keys = np.repeat(derive(self.key, own), slots)
            here = slice(at, at + len(rows))
            accepted[here] = rule.acceptance.depths(keys, inside, most, requests, rows)
            if rule.offers is not None:
                offered[here] = rule.offers(keys, position, drafts)
                accepted[here] = np.minimum(accepted[here], offered[here])
            at += len(rows)
        return accepted, offered

    def _rounds(self, cached: Counts, offered: Counts, accepted: Counts, drafted: Counts, bounds: list[int]) -> Rounds:
        """From what is cached before every round, the drafts it verifies, and the two sums.

        A sequence keeps the blocks of a round that was wider than those after it, as engines do: none shrinks.
        """
        rule = self.rule
        if not rule.ragged:
            width: int | Counts = rule.width(int(offered[0])) if len(offered) else 1
            at_least = None
        else:
            width = offered + 1
            longest = int(offered.max()) if len(offered) else 0
            at_least = (offered >= np.arange(1, longest + 1)[:, None]).astype(np.int64)
        blocks = cached + (width + rule.lookahead_tokens + self.block_tokens - 1)
        blocks //= self.block_tokens
        if rule.ragged and len(blocks):
            apart = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)) * (blocks.max() + 1)
            blocks = np.maximum.accumulate(blocks + apart) - apart
        return Rounds(_summed(cached), blocks.astype(np.int32), accepted, drafted, at_least)


def _summed(values: NDArray[np.integer]) -> Counts:
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _walk(accepted: Counts, offered: Counts, starts: Counts, left: Counts, rule: RoundRule) -> Counts:
    """Positions at which a round starts, all requests in step; trailing rounds accept nothing.

    A request's own lengths are written into `offered`.
    """
    starts_round = np.zeros(len(accepted), dtype=np.bool_)
    alive = left > 0
    first, ends = starts[alive], (starts + left)[alive]
    for trailing in range(rule.trailing_rounds):
        accepted[ends + trailing] = 0
    if rule.request_length is None:
        _step_on(starts_round, first, ends, accepted)
    else:
        _choose_on(starts_round, first, ends, accepted, offered, rule.request_length)
    for trailing in range(rule.trailing_rounds):
        starts_round[ends + trailing] = True
    return np.flatnonzero(starts_round)


def _step_on(starts_round: NDArray[np.bool_], first: Counts, ends: Counts, accepted: Counts) -> None:
    """Mark every round; whoever is through steps on its end, and is let go now and then."""
    following = np.arange(1, len(accepted) + 1)
    following += accepted
    lengths = np.diff(np.append(first, len(accepted)))
    np.minimum(following, np.repeat(ends, lengths), out=following)
    following[ends] = ends
    at = first
    while at.size:
        for _ in range(_STEPS_BETWEEN_EXITS):
            starts_round[at] = True
            at = following[at]
        at = at[following[at] != at]
    starts_round[ends] = False


def _choose_on(
    starts_round: NDArray[np.bool_],
    at: Counts,
    ends: Counts,
    accepted: Counts,
    offered: Counts,
    own: RequestLength,
) -> None:
    """`_step_on` where every request chooses its own lengths as it goes."""
    state = own.first(len(at))
    while at.size:
        starts_round[at] = True
        offered[at] = own.drafts(state, accepted[at])
        accepted[at] = np.minimum(accepted[at], offered[at])
        state = own.next(state, offered[at], accepted[at])
        at = at + accepted[at] + 1
        inside = at < ends
        at, ends, state = at[inside], ends[inside], state[inside]
