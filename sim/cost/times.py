"""Step times in whole ticks for the serving loop: `StepCost`, tabulated.

What sees tokens is tabulated over token counts, what sees contexts becomes lines over cells of context. Both come from
`StepCost` and its forward passes alone; a test holds them to it.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from sim.cost.forward import ForwardCost
from sim.cost.host import Engine
from sim.cost.lines import TICKS_PER_S, Lines, cell_bounds
from sim.cost.shape import Seconds, StepShape
from sim.cost.step import StepCost


def _ticks(seconds: Seconds) -> list[int]:
    """Every entry rounded once to whole ticks."""
    rounded: list[int] = np.rint(np.atleast_1d(seconds) * TICKS_PER_S).astype(np.int64).tolist()
    return rounded


class ForwardTimes:
    """Ticks of one model's forward passes with prefill in them.

    Args:
        forward: the pass.
        engine: how it is padded and launched.
        width: query tokens of each decoding sequence.
        most_tokens: most query tokens of a step.
        most_context_tokens: most cached tokens of a batch.
    """

    def __init__(
        self, forward: ForwardCost, engine: Engine, width: int, most_tokens: int, most_context_tokens: int
    ) -> None:
        self._forward = forward
        self._engine = engine
        self._width = width
        self._most_tokens = most_tokens
        self._bounds = cell_bounds(most_context_tokens)
        tokens = np.arange(most_tokens + 1)
        self._launch = _ticks(
            engine.launch_s(forward.model.layer_count, tokens, np.zeros_like(tokens), full_graph=False)
        )
        base = StepShape(prefill_tokens=1, logits=np.zeros_like(tokens))
        rows = StepShape(prefill_tokens=1, logits=tokens)
        self._rows = _ticks(sum(forward.tokenwise(rows).values()) - sum(forward.tokenwise(base).values()))
        prompts = StepShape(chunks=1, prefill_tokens=tokens, prefill_pairs=tokens * (tokens + 1) // 2)
        self._prompts = _ticks(forward.prefill_attention_s(prompts))
        self._tokens_with = cache(self._tabulate_tokens)
        self._attention_with = cache(self._tabulate_attention)

    def mixed(
        self,
        sequences: int,
        context_tokens: int,
        chunks: int,
        new_tokens: int,
        history_tokens: int,
        pairs: int,
        rows: int,
    ) -> int:
        """A pass over decoding sequences and prefill chunks that computes `rows` rows of logits."""
        gpu = (
            self._tokens_with(sequences)[new_tokens]
            + self._rows[rows]
            + self._prefill(chunks, new_tokens, history_tokens, pairs)
        )
        if sequences:
            gpu += self._attention_with(sequences).at(context_tokens)
        return max(gpu, self._launch[sequences * self._width + new_tokens])

    def _prefill(self, chunks: int, new_tokens: int, history_tokens: int, pairs: int) -> int:
        if chunks == 1 and not history_tokens:
            return self._prompts[new_tokens]
        shape = StepShape(
            chunks=chunks, prefill_tokens=new_tokens, prefill_history_tokens=history_tokens, prefill_pairs=pairs
        )
        return round(float(self._forward.prefill_attention_s(shape)) * TICKS_PER_S)

    def _tabulate_tokens(self, sequences: int) -> list[int]:
        """What sees tokens only, without logits, over prefill tokens."""
        new = np.arange(self._most_tokens - sequences * self._width + 1)
        shape = StepShape(sequences=sequences, width=self._width, prefill_tokens=new, logits=np.zeros_like(new))
        return _ticks(sum(self._forward.tokenwise(shape, self._engine.padded_tokens(shape.tokens)).values()))

    def _tabulate_attention(self, sequences: int) -> Lines:
        """Attention of the decoding sequences over their context."""
        return Lines.through(
            self._bounds,
            lambda context: self._forward.decode_attention_s(
                StepShape(sequences=sequences, width=self._width, context_tokens=context)
            ),
        )


class StepTimes:
    """What a rank asks: steps of pure decoding as lines, steps with prefill one by one.

    Args:
        cost: the deployment's step cost.
        most_tokens: most query tokens of a step (`scheduler.max_batched_tokens`).
        most_context_tokens: most cached tokens of a batch (the KV pool).
    """

    def __init__(self, cost: StepCost, most_tokens: int, most_context_tokens: int) -> None:
        self._cost = cost
        self._bounds = cell_bounds(most_context_tokens)
        width = cost.drafts + 1
        room = (cost.engine, width, most_tokens, most_context_tokens)
        self._target = ForwardTimes(cost.target, *room)
        self._draft = ForwardTimes(cost.draft, *room) if cost.draft is not None else None
        host_s = cost.engine.step_host_s + cost.engine.sequence_host_s * np.arange(most_tokens + 1)
        self._host = _ticks(host_s.astype(np.float64))
        self._sampling = _ticks(cost.sampling_s(StepShape(logits=np.arange(most_tokens + 1))))
        self._draft_host = cost.drafts * _ticks(cost.engine.draft_pass_host_s)[0]
        self.decode = cache(self._tabulate_decode)
        self._single_pass = cache(self._tabulate_single_pass)

    def mixed(
        self,
        sequences: int,
        context_tokens: int,
        chunks: int,
        new_tokens: int,
        history_tokens: int,
        pairs: int,
        completed: int,
    ) -> int:
        """One step with prefill, in ticks; arguments as in `StepShape`."""
        moments = (sequences, context_tokens, chunks, new_tokens, history_tokens, pairs)
        decode_tokens = sequences * (self._cost.drafts + 1)
        rows = decode_tokens + completed
        total = self._target.mixed(*moments, rows) + self._sampling[rows] + self._host[sequences + chunks]
        if self._draft is None:
            return total
        proposing = sequences + completed
        total += self._draft.mixed(*moments, proposing) + self._draft_host
        if proposing and self._cost.drafts > 1:
            cached = context_tokens + decode_tokens + new_tokens + history_tokens
            total += (self._cost.drafts - 1) * self._single_pass(proposing).at(cached)
        return total

    def _tabulate_decode(self, sequences: int) -> Lines:
        width = self._cost.drafts + 1
        return Lines.through(
            self._bounds,
            lambda context: self._cost.seconds(StepShape(sequences=sequences, width=width, context_tokens=context)),
        )

    def _tabulate_single_pass(self, sequences: int) -> Lines:
        """One draft pass of one token per sequence."""
        return Lines.through(
            self._bounds,
            lambda context: self._cost.draft_pass_s(StepShape(sequences=sequences, context_tokens=context)),
        )
