"""One model's forward passes with prefill in them, in whole ticks: tokens by tables, contexts by lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sim.cost.forward import ForwardCost
from sim.cost.host import Engine
from sim.cost.lines import TICKS_PER_S, Lines, cell_bounds, ticks_table
from sim.cost.shape import Moments, Seconds, StepShape


class ForwardTimes:
    """Ticks of passes over decoding sequences and prefill chunks.

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
        self._launch = ticks_table(
            engine.launch_s(forward.model.layer_count, tokens, np.zeros_like(tokens), full_graph=False)
        )
        base = StepShape(prefill_tokens=1, logits=np.zeros_like(tokens))
        rows = StepShape(prefill_tokens=1, logits=tokens)
        self._rows = ticks_table(_together(forward.tokenwise(rows)) - _together(forward.tokenwise(base)))
        prompts = StepShape(chunks=1, prefill_tokens=tokens, prefill_pairs=tokens * (tokens + 1) // 2)
        self._prompts = ticks_table(forward.prefill_attention_s(prompts))
        self._computed = np.maximum(engine.padded_tokens(tokens), tokens)
        self._own_s = _together(forward.own_tokenwise(self._computed, np.zeros_like(tokens)))
        self._tokens_with = cache(self._tabulate_tokens)
        self._attention_with = cache(self._tabulate_attention)

    def mixed(self, sequences: int, context_tokens: int, moments: Moments, rows: int) -> int:
        """A pass over decoding sequences and prefill chunks that computes `rows` rows of logits."""
        chunks, new_tokens, history_tokens, pairs, _ = moments
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

    def _tabulate_tokens(self, sequences: int) -> Sequence[int]:
        """What sees tokens only, without logits, over prefill tokens."""
        first, groups = sequences * self._width, self._forward.data_parallel
        together = self._forward.shared_tokenwise(groups * sequences, self._width, groups * self._computed[first:])
        return ticks_table(self._own_s[first:] + _together(together))

    def _tabulate_attention(self, sequences: int) -> Lines:
        """Attention of the decoding sequences over their context."""
        return Lines.through(
            self._bounds,
            lambda context: self._forward.decode_attention_s(
                StepShape(sequences=sequences, width=self._width, context_tokens=context)
            ),
        )


def _together(families: dict[str, Seconds]) -> NDArray[np.float64]:
    """Seconds of all of them."""
    total: Seconds = 0.0
    for seconds in families.values():
        total = total + seconds
    return np.asarray(total)
