"""Times of steps that attention ranks take in lockstep (DP attention): `StepCost` for ranks that do different things.

A step lasts as long as its slowest rank, which waits for nobody in a collective; where all ranks do the same it is the
step of `StepCost`, which takes that for granted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby

import numpy as np

from sim.cost.drafting import Drafting
from sim.cost.lines import TICKS_PER_S, ticks_table
from sim.cost.lockstep import Contexts, Pass, RankLoad, RankTime
from sim.cost.lockstep_forward import LockstepForward
from sim.cost.shape import StepShape
from sim.cost.step import StepCost


class LockstepTimes:
    """What a group of ranks asks: how long its coming step lasts.

    Args:
        cost_at: the deployment's step cost at a draft length.
        most_drafts: the longest draft length.
        most_tokens: most query tokens of a rank's step (`scheduler.max_batched_tokens`).
        most_context_tokens: most cached tokens of a rank (its KV pool).
    """

    def __init__(
        self, cost_at: Callable[[int], StepCost], most_drafts: int, most_tokens: int, most_context_tokens: int
    ) -> None:
        cost = cost_at(most_drafts)
        engine = cost.engine
        self._cost_at = cost_at
        self._target = LockstepForward(
            cost.target, engine, most_tokens, most_context_tokens, full_graph=engine.full_graph
        )
        counts = np.arange(most_tokens + 1)
        step_s = engine.step_host_s + (engine.round_host_s if cost.drafting is not None else 0.0)
        self._host = ticks_table(step_s + engine.sequence_host_s * counts)
        self._draft_token = ticks_table(engine.draft_token_host_s * counts)
        self._sampling = ticks_table(cost.sampling_s(StepShape(logits=counts)))
        self._width = cache(lambda drafts: cost_at(drafts).width)
        self._draft: DraftPasses | None = None
        if cost.drafting is not None:
            self._draft = DraftPasses(cost, cost.drafting, most_tokens, most_context_tokens)
        self._drafting = cache(lambda drafts: cost_at(drafts).drafting)

    def step(self, loads: Sequence[RankLoad], context: Sequence[int]) -> int:
        """Ticks of one step, with so many cached tokens on each rank."""
        return max(time.at(context[rank]) for rank, time in self._times(loads))

    def steps(self, loads: Sequence[RankLoad], context: Sequence[Contexts]) -> Contexts:
        """Ticks of several steps that differ in cached tokens alone."""
        longest: Contexts = np.max([time.over(context[rank]) for rank, time in self._times(loads)], axis=0)
        return longest

    def _times(self, loads: Sequence[RankLoad]) -> list[tuple[int, RankTime]]:
        """The step of every rank that has anything to do."""
        decode = [self._decode_tokens(load) for load in loads]
        tokens = [rows + load.moments[1] if load.busy else 1 for rows, load in zip(decode, loads, strict=True)]
        uniform = [
            not load.moments[0] and rows == load.sequences * self._width(load.drafts)
            for rows, load in zip(decode, loads, strict=True)
        ]
        target = self._target
        pass_ = target.together(tokens, uniform, sum(load.sequences for load in loads), sum(decode))
        times = []
        for rank, load in enumerate(loads):
            if load.busy:
                sequences, moments, rows = load.sequences, load.moments, decode[rank] + load.moments[4]
                fixed = target.own[pass_.computed[rank]] + target.rows[rows] + pass_.shared[rank]
                fixed += target.prefill(moments) if moments[0] else 0
                lines = target.attention(sequences, decode[rank]) if sequences else None
                rest = self._host[sequences + moments[0]] + self._sampling[rows]
                rest += self._draft_token[decode[rank] - sequences]
                times.append((rank, RankTime(rest, [Pass(1, fixed, pass_.launch[rank], lines)])))
        if self._draft is None:
            return times
        return self._draft.added(times, loads, decode, [self._drafting(load.drafts) for load in loads])

    def _decode_tokens(self, load: RankLoad) -> int:
        if load.at_least:
            return load.sequences + sum(load.at_least)
        return load.sequences * self._width(load.drafts)


class DraftPasses:
    """What drafting adds; arguments as for LockstepTimes, `drafting` that of the longest draft."""

    def __init__(self, cost: StepCost, drafting: Drafting, most_tokens: int, most_context_tokens: int) -> None:
        self._pass_host = ticks_table(cost.engine.draft_pass_host_s)[0]
        self._model: LockstepForward | None = None
        if cost.draft is not None:
            engine = cost.draft_engine
            room = most_tokens * (cost.width + drafting.first_extra) // cost.width
            self._model = LockstepForward(
                cost.draft, engine, room, most_context_tokens, full_graph=engine.draft_full_graph
            )
            self._fusion = ticks_table(cost.fusion_s(np.arange(room + 1)))

    def added(
        self,
        times: list[tuple[int, RankTime]],
        loads: Sequence[RankLoad],
        decode: Sequence[int],
        drafting: Sequence[Drafting | None],
    ) -> list[tuple[int, RankTime]]:
        """`times` with the passes of the drafter, and its time on the host."""
        with_drafts = []
        first = self._first(loads, decode, drafting)
        later = self._later(loads, decode, drafting)
        for rank, time in times:
            own = drafting[rank]
            assert own is not None
            proposing = loads[rank].sequences + loads[rank].moments[4]
            rest = time.rest + round((own.host_s + own.sequence_host_s * proposing) * TICKS_PER_S)
            passes = [*time.passes, *first[rank], *later[rank]]
            rest += self._pass_host * sum(one.times for one in passes[1:])
            rest += self._fused(loads[rank], decode[rank], own)
            with_drafts.append((rank, RankTime(rest, passes)))
        return with_drafts

    def _fused(self, load: RankLoad, decode: int, drafting: Drafting) -> int:
        return self._fusion[_first_tokens(load, decode, drafting)] if drafting.catch_up else 0

    def _first(
        self, loads: Sequence[RankLoad], decode: Sequence[int], drafting: Sequence[Drafting | None]
    ) -> list[list[Pass]]:
        """The catch-up pass of each rank."""
        passes: list[list[Pass]] = [[] for _ in loads]
        model, known = self._model, [one for one in drafting if one is not None]
        if model is None or not known[0].catch_up:
            return passes
        tokens = [
            _first_tokens(load, rows, one) if load.busy else 1
            for load, rows, one in zip(loads, decode, known, strict=True)
        ]
        uniform = [not load.moments[0] for load in loads]
        wide = [rows + load.sequences * known[0].first_extra for load, rows in zip(loads, decode, strict=True)]
        together = model.together(tokens, uniform, sum(load.sequences for load in loads), sum(wide))
        for rank, load in enumerate(loads):
            if load.busy:
                chunks, new, history, pairs, completed = load.moments
                rows = (load.sequences + completed) * known[rank].first_rows
                masked = completed * known[rank].first_extra
                fixed = model.own[together.computed[rank]] + model.rows[rows] + together.shared[rank]
                fixed += model.prefill((chunks, new + masked, history, pairs, completed)) if chunks else 0
                lines = model.attention(load.sequences, wide[rank]) if load.sequences else None
                passes[rank].append(Pass(1, fixed, together.launch[rank], lines))
        return passes

    def _later(
        self, loads: Sequence[RankLoad], decode: Sequence[int], drafting: Sequence[Drafting | None]
    ) -> list[list[Pass]]:
        """The passes after it, of each rank."""
        passes: list[list[Pass]] = [[] for _ in loads]
        model, known = self._model, [one for one in drafting if one is not None]
        if model is None:
            return passes
        counts = [_drafting_sequences(load, one) for load, one in zip(loads, known, strict=True)]
        most = max(len(count) for count in counts)
        steps = [tuple(count[i] if i < len(count) else 0 for count in counts) for i in range(most)]
        for step, same in groupby(steps):
            times = len(list(same))
            tokens = [max(1, count * one.pass_width) for count, one in zip(step, known, strict=True)]
            together = model.together(tokens, [True] * len(loads), sum(step), sum(tokens))
            for rank, (count, load) in enumerate(zip(step, loads, strict=True)):
                if count:
                    fixed = model.own[together.computed[rank]] + model.rows[count * known[rank].pass_rows]
                    lines = model.attention(count, tokens[rank])
                    proposing = load.sequences + load.moments[4]
                    more = (decode[rank] + load.moments[1] + load.moments[2]) * count // proposing
                    passes[rank].append(
                        Pass(times, fixed + together.shared[rank], together.launch[rank], lines, count, proposing, more)
                    )
        return passes


def _first_tokens(load: RankLoad, decode: int, drafting: Drafting) -> int:
    """Query tokens of a rank's catch-up pass."""
    return decode + load.moments[1] + (load.sequences + load.moments[4]) * drafting.first_extra


def _drafting_sequences(load: RankLoad, drafting: Drafting) -> list[int]:
    """Sequences of a rank that take part in each pass after the first."""
    if not drafting.passes:
        return []
    if load.at_least:
        return [count + load.moments[4] for count in load.at_least[-drafting.passes :]]
    return [load.sequences + load.moments[4]] * drafting.passes
