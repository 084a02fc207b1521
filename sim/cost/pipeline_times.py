"""Times of batches in the stages of a pipeline, without speculative decoding."""

from __future__ import annotations

import numpy as np

from sim.cost.comm import Collectives
from sim.cost.constants import exchange_over
from sim.cost.lines import ticks_table
from sim.cost.lockstep_forward import LockstepForward
from sim.cost.shape import Moments, StepShape
from sim.cost.step import StepCost
from sim.cost.work import ACTIVATION_BYTES
from sim.hardware import Link

_SENT_TENSORS = 2
"""Hidden states and residual (vLLM `IntermediateTensors`)."""


def stage_layers(layers: int, stages: int) -> list[int]:
    """Layers of each stage: as many each, of the rest one each for the last stages but the very last (vLLM).

    Raises:
        ValueError: fewer layers than stages.
    """
    if layers < stages:
        raise ValueError(f"pipeline_parallel must be <= the {layers} layers of the model, got {stages}")
    each, rest = divmod(layers, stages)
    return [each + (stages - 1 - rest <= stage < stages - 1) for stage in range(stages)]


class PipelineTimes:
    """What a pipeline asks: how long each stage takes for a batch, and the way from one to the next.

    A stage has its share of the mean layer's time, whichever kinds of layers it holds; the first also the embedding and
    the host's work, the last LM head and sampling. Each launches its own layers.

    Args:
        cost: the step cost.
        stages: number of stages.
        link: between two stages.
        most_tokens: most query tokens of a batch.
        most_context_tokens: most cached tokens of a batch.
    """

    def __init__(self, cost: StepCost, stages: int, link: Link, most_tokens: int, most_context_tokens: int) -> None:
        forward, engine = cost.target, cost.engine
        self._layers = stage_layers(forward.model.layer_count, stages)
        self._whole = forward.model.layer_count
        self._forward = LockstepForward(forward, engine, most_tokens, most_context_tokens, full_graph=engine.full_graph)
        counts = np.arange(most_tokens + 1)
        computed = np.arange(len(self._forward.own))
        embedding_s = forward.own_tokenwise(computed, np.zeros_like(computed))["embedding"]
        self._embedding = ticks_table(embedding_s * np.ones(len(computed)))
        self._host = ticks_table(engine.step_host_s + engine.sequence_host_s * counts)
        self._sampling = ticks_table(cost.sampling_s(StepShape(logits=counts)))
        hop = Collectives(exchange_over(link.kind) or forward.constants.allreduce, link, 2)
        sent = np.multiply(computed, _SENT_TENSORS * forward.model.hidden * ACTIVATION_BYTES / forward.tensor_parallel)
        self._send = ticks_table(hop.latency_s + sent / hop.bus_bytes_per_s)

    def stages(self, sequences: int, context_tokens: int, moments: Moments) -> list[int]:
        """Ticks of one batch in each stage; arguments as in `RankLoad`."""
        chunks, new, _, _, completed = moments
        tokens, rows, forward = sequences + new, sequences + completed, self._forward
        together = forward.together([tokens], [not chunks], sequences, sequences)
        embedding = self._embedding[together.computed[0]]
        layers = forward.own[together.computed[0]] - embedding + together.shared[0]
        layers += forward.prefill(moments) if chunks else 0
        layers += forward.attention(sequences, sequences).at(context_tokens) if sequences else 0
        ticks = []
        for stage, held in enumerate(self._layers):
            gpu, last = layers * held // self._whole, stage == len(self._layers) - 1
            gpu += embedding if not stage else 0
            gpu += forward.rows[rows] if last else 0
            taken = max(gpu, together.launch[0] * held // self._whole)
            taken += self._host[sequences + chunks] if not stage else 0
            taken += self._sampling[rows] if last else 0
            ticks.append(taken)
        return ticks

    def send(self, tokens: int) -> int:
        """Ticks from one stage to the next for the activations of so many tokens, each GPU its share of them."""
        return self._send[self._forward.padded[tokens]]
