"""A real speculative decode loop: draft passes, verification, rejection, timed per phase.

Acceptance is forced, since random weights would accept next to nothing; all work of rejection is done all the same.
"""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import torch

from sim.profiling.place import Place
from sim.profiling.sampling import reject, sample
from sim.profiling.timing import Timing, captured, summarize
from sim.profiling.transformer import Transformer

PHASES = ("draft", "verify", "rejection")


class SpeculativeLoop:
    """`batch` sequences of `context` cached tokens that speculate with `drafts` tokens per round.

    Args:
        target, draft: models of one vocabulary, on one rank.
        batch, drafts, context: sizes, all at least 1, context at least drafts.
        slots: cache slots per sequence, for all tokens of all rounds.

    Raises:
        ValueError: the vocabularies differ, a model is cut over ranks, or the context is too short.
    """

    WARM_UP_ROUNDS = 3

    def __init__(
        self, target: Transformer, draft: Transformer, batch: int, drafts: int, context: int, slots: int
    ) -> None:
        if target.vocabulary != draft.vocabulary or target.ranks > 1 or draft.ranks > 1:
            raise ValueError(
                f"target and draft must share a vocabulary on one rank, got {target.vocabulary} and "
                f"{draft.vocabulary} over {target.ranks} and {draft.ranks} ranks"
            )
        if context < drafts:
            raise ValueError(f"context must be >= drafts={drafts}, got {context}")
        place = target.place
        self.target, self.draft, self.place = target, draft, place
        self._target_cache, self._draft_cache = target.cache(batch, slots), draft.cache(batch, slots)
        self.cached = torch.full((batch,), context, dtype=torch.int32, device=place.device)
        # The last committed tokens, as many as a round commits at most: the draft's cache may lack them.
        self.committed = place.integers(target.vocabulary, batch, drafts + 1)
        self.drafts = place.integers(target.vocabulary, batch, drafts)
        self.accepted = torch.zeros(batch, dtype=torch.int64, device=place.device)
        self.forced = torch.full((batch,), -1, dtype=torch.int64, device=place.device)
        self._proposal = place.randn(batch, drafts, target.vocabulary)
        self._verified = place.randn(batch, drafts + 1, target.vocabulary)

    def propose(self) -> None:
        """The draft passes: one over as many positions as were verified, the others over one token each."""
        count = self.drafts.shape[1]
        logits = self.draft.forward(self.committed, self.cached - count, self._draft_cache)[:, -1]
        for depth in range(count):
            if depth:
                token = self.drafts[:, depth - 1 : depth]
                logits = self.draft.forward(token, self.cached + depth, self._draft_cache)[:, -1]
            self._proposal[:, depth] = logits
            self.drafts[:, depth] = sample(logits)

    def verify(self) -> None:
        """One target pass over the last committed token and the drafts."""
        tokens = torch.cat([self.committed[:, -1:], self.drafts], dim=1)
        self._verified.copy_(self.target.forward(tokens, self.cached, self._target_cache))

    def settle(self) -> None:
        """Rejection; then the sequences move on by what was accepted, or by `forced` where it is not negative."""
        emitted, accepted = reject(self._verified, self._proposal, self.drafts)
        token = emitted.gather(1, accepted[:, None])
        count = torch.where(self.forced >= 0, self.forced, accepted)
        tokens = torch.cat([self.committed, self.drafts], dim=1)
        kept = count[:, None] + torch.arange(1, self.drafts.shape[1] + 1, device=count.device)
        self.committed.copy_(torch.cat([tokens.gather(1, kept), token], dim=1))
        self.accepted.copy_(count)
        self.cached += (count + 1).to(torch.int32)

    def round_once(self) -> None:
        """One round; the caches must have room for it."""
        self.propose()
        self.verify()
        self.settle()

    def time_rounds(self, forced: torch.Tensor) -> dict[str, Timing]:
        """Timings of the round and its phases.

        Args:
            forced: drafts accepted, [rounds, batch] int64; the first `WARM_UP_ROUNDS` rounds are not timed.
        """
        start = self.cached.clone()
        waits = self.target.waits or self.draft.waits
        steps = (self.propose, self.verify, self.settle)
        phases = [(step, False) if waits else captured(step, self.place) for step in steps]
        self.cached.copy_(start)
        seen: list[list[float]] = []
        for row in forced:
            self.forced.copy_(row)
            self.place.synchronize()
            stamps = [_stamp(self.place)]
            for phase, _ in phases:
                phase()
                stamps.append(_stamp(self.place))
            self.place.synchronize()
            seen.append([_seconds(*pair) for pair in pairwise(stamps)])
        kept = seen[self.WARM_UP_ROUNDS :]
        columns = {name: [times[i] for times in kept] for i, name in enumerate(PHASES)}
        columns["round"] = [sum(times) for times in kept]
        graphs = dict(zip(PHASES, (graph for _, graph in phases), strict=True))
        return {
            name: summarize(times, graph=graphs.get(name, all(graphs.values())), flushed=False)
            for name, times in columns.items()
        }


def draw_accepted(rounds: int, batch: int, drafts: int, rate: float, seed: int = 0) -> torch.Tensor:
    """Accepted drafts [rounds, batch] int64 when each is accepted with probability `rate` after all before it."""
    hits = np.random.default_rng(seed).random((rounds, batch, drafts)) < rate
    return torch.from_numpy(hits.cumprod(axis=2).sum(axis=2).astype(np.int64))


def _stamp(place: Place) -> float | torch.cuda.Event:
    if not place.is_cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    assert isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event)
    return float(start.elapsed_time(end)) * 1e-3
