"""One model's passes on attention ranks in lockstep, in whole ticks: each rank's own part and what they do together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from sim.cost.forward import ForwardCost
from sim.cost.host import Engine
from sim.cost.lines import TICKS_PER_S, Lines, cell_bounds, ticks_table
from sim.cost.shape import Moments, StepShape


class Together(NamedTuple):
    """A pass that all ranks run at once.

    Attributes:
        computed: tokens that each rank computes, padding included.
        shared: ticks of the routed experts and of the exchange of tokens, of each rank.
        launch: ticks to launch the pass, of each rank.
    """

    computed: list[int]
    shared: list[int]
    launch: list[int]


class LockstepForward:
    """Ticks of the passes of one model.

    Ranks that share experts agree on a batch before every pass (vLLM `coordinate_batch_across_dp`): all run a full
    graph, a piecewise one or none, whichever is least among them, and with a graph all pad to the largest of them.
    SGLang does the same for steps of decoding alone (`DpPaddingMode.MAX_LEN`) and pads nothing in the others. Ranks of
    a model without routed experts run it each for itself.

    Args:
        forward: the pass of one rank.
        engine: how it is padded and launched.
        full_graph: whether uniform batches run as one graph.
        most_tokens: most query tokens of a rank.
        most_context_tokens: most cached tokens of a rank.
    """

    def __init__(
        self, forward: ForwardCost, engine: Engine, most_tokens: int, most_context_tokens: int, *, full_graph: bool
    ) -> None:
        self._forward = forward
        self._engine = engine
        self._full_graph = full_graph
        self._bounds = cell_bounds(most_context_tokens)
        self._most_computed = max(most_tokens, int(np.asarray(engine.padded_tokens(most_tokens))))
        tokens = np.arange(self._most_computed + 1)
        own_s = sum(forward.own_tokenwise(tokens, np.zeros_like(tokens)).values())
        one_s = sum(forward.own_tokenwise(1, 0).values())
        self.own = ticks_table(own_s)
        self.rows = ticks_table(sum(forward.own_tokenwise(1, tokens).values()) - one_s)
        self.padded: list[int] = np.asarray(engine.padded_tokens(tokens)).tolist()
        prompts = StepShape(chunks=1, prefill_tokens=tokens, prefill_pairs=tokens * (tokens + 1) // 2)
        self._prompts = ticks_table(forward.prefill_attention_s(prompts))
        self._launch = {
            uniform: ticks_table(
                engine.launch_s(forward.model.layer_count, tokens, np.full_like(tokens, uniform), full_graph)
            )
            for uniform in (False, True)
        }
        self.attention = cache(self._tabulate_attention)
        self._experts = cache(self._share_experts)
        self._independent = cache(self._tabulate_experts)

    def together(self, tokens: Sequence[int], uniform: Sequence[bool], sequences: int, decode_tokens: int) -> Together:
        """A pass over so many tokens on each rank.

        Args:
            tokens: query tokens of each rank, at least 1.
            uniform: whether the batch of each rank has one width and no prefill.
            sequences: decoding sequences of all ranks.
            decode_tokens: their query tokens.
        """
        if self._forward.data_parallel == 1:
            return self._alone(tokens, uniform, sequences, decode_tokens)
        most, ranks = max(tokens), len(tokens)
        launch = self._launch[all(uniform)][most]
        padded, engine = self.padded[most], self._engine
        pads = padded <= engine.graph_tokens and (engine.pads_prompts or all(uniform))
        computed = [padded] * ranks if pads else list(tokens)
        shared = self._shared(sequences, decode_tokens, sum(computed))
        return Together(computed, [shared] * ranks, [launch] * ranks)

    def prefill(self, moments: Moments) -> int:
        """Attention of the prefill chunks of one rank."""
        chunks, new, history, pairs, _ = moments
        if chunks == 1 and not history:
            return self._prompts[new]
        shape = StepShape(chunks=chunks, prefill_tokens=new, prefill_history_tokens=history, prefill_pairs=pairs)
        return round(float(self._forward.prefill_attention_s(shape)) * TICKS_PER_S)

    def _alone(self, tokens: Sequence[int], uniform: Sequence[bool], sequences: int, decode_tokens: int) -> Together:
        """Each rank for itself: those of a model without routed experts, or a single one."""
        computed = [self.padded[count] for count in tokens]
        shared = [0] * len(tokens)
        if self._forward.model.is_moe:
            shared = [self._shared(sequences, decode_tokens, count) for count in computed]
        return Together(computed, shared, [self._launch[u][t] for u, t in zip(uniform, tokens, strict=True)])

    def _shared(self, sequences: int, decode_tokens: int, tokens: int) -> int:
        if self._forward.routing.overlap and sequences:
            return self._experts(sequences, decode_tokens, tokens)
        return self._independent()[tokens]

    def _tabulate_attention(self, sequences: int, tokens: int) -> Lines:
        """Attention of a rank's decoding sequences with so many query tokens, over their context."""
        width = tokens // sequences if tokens % sequences == 0 else tokens / sequences
        return Lines.through(
            self._bounds,
            lambda context: self._forward.decode_attention_s(
                StepShape(sequences=sequences, width=width, context_tokens=context)
            ),
        )

    def _share_experts(self, sequences: int, decode_tokens: int, tokens: int) -> int:
        seconds = self._forward.shared_tokenwise(sequences, decode_tokens / sequences, tokens).values()
        return round(float(sum(seconds)) * TICKS_PER_S)

    def _tabulate_experts(self) -> Sequence[int]:
        """Over tokens of all ranks that share no experts."""
        tokens = np.arange(self._forward.data_parallel * self._most_computed + 1)
        return ticks_table(sum(self._forward.shared_tokenwise(0, 1, tokens).values()))
