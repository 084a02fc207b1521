"""Collectives of one forward pass: inside a tensor-parallel group, and between groups that share routed experts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.comm import Collectives
from sim.cost.constants import AllReduce
from sim.cost.shape import Count, Seconds
from sim.cost.work import ACTIVATION_BYTES
from sim.hardware import Link
from sim.model import Model


@dataclass(frozen=True, slots=True)
class ForwardCollectives:
    """Collectives of `data_parallel` groups of `tensor_parallel` GPUs that run `model`.

    Attributes:
        model: the model.
        constants: of all-reduces, and of all that happens inside a group.
        exchange: of what happens between groups.
        link: between all of the GPUs.
        tensor_parallel, data_parallel: as above.
    """

    model: Model
    constants: AllReduce
    exchange: AllReduce
    link: Link
    tensor_parallel: int
    data_parallel: int

    def inside_s(self, tokens: Count, logit_rows: Count) -> Seconds:
        """Inside a group: all-reduces of the activations, all-gather of the logits.

        A MoE layer whose experts are shared by several groups ends in an all-gather of the group's own tokens instead
        of an all-reduce (vLLM: sequence-parallel MoE).
        """
        group = Collectives(self.constants, self.link, self.tensor_parallel)
        message = np.multiply(tokens, self.model.hidden * ACTIVATION_BYTES)
        logits = np.multiply(logit_rows, self.model.vocab * ACTIVATION_BYTES)
        reduced = self._reductions * group.all_reduce(message)
        return reduced + self._exchanges * group.all_gather(message) + group.all_gather(logits)

    def between_s(self, tokens: Count) -> Seconds:
        """Between groups: `dispatch` and `combine` of every MoE layer, vLLM's `allgather_reducescatter`.

        Every GPU gets the hidden states and router logits of all `tokens` (all-gather), and the sum of what the experts
        made of its own (reduce-scatter).
        """
        group = Collectives(self.exchange, self.link, self.tensor_parallel * self.data_parallel)
        hidden, total = self.model.hidden * ACTIVATION_BYTES, 0.0 * np.asarray(tokens)
        if self.data_parallel == 1:
            return total
        for run in self.model.layers:
            if run.ffn.kind == "moe":
                dispatched = np.multiply(tokens, hidden + run.ffn.experts * ACTIVATION_BYTES)
                layer_s = group.all_gather(dispatched) + group.reduce_scatter(np.multiply(tokens, hidden))
                total = total + run.count * layer_s
        return total

    @property
    def launches(self) -> int:
        """Kernels of all of them."""
        inside = self._reductions + self._exchanges + 1 if self.tensor_parallel > 1 else 0
        return inside + 2 * self._exchanges

    @property
    def _exchanges(self) -> int:
        """MoE layers whose tokens pass between groups."""
        if self.data_parallel == 1:
            return 0
        return sum(run.count for run in self.model.layers if run.ffn.kind == "moe")

    @property
    def _reductions(self) -> int:
        """All-reduces: after the embedding, attention and FFN of every layer unless it ends in an exchange."""
        return 2 * self.model.layer_count + 1 - self._exchanges
