"""The host side of an engine version: graphs, launches, scheduling, and the memory it keeps for itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.shape import Count, Seconds
from sim.data import data_dir, read_named


@dataclass(kw_only=True, slots=True)
class Engine:
    """An engine version: named constants shared by every run on it.

    A forward pass takes its GPU time or the time the host needs to launch it, whichever is longer: nothing for a
    full CUDA graph, `layer_host_s` per layer where attention runs between pieces of a graph, `eager_layer_host_s`
    without graphs.

    Attributes:
        name: engine and version.
        step_host_s: host time of a step that no GPU work hides (schedule, inputs, outputs).
        sequence_host_s: the same, per sequence in the step.
        round_host_s: host time more in every step of an engine that drafts.
        draft_token_host_s: host time per draft token that is verified (its slots, its indices, its acceptance).
        sample_s: sampling, when nothing was drafted.
        reject_s: rejection sampling.
        layer_host_s, eager_layer_host_s: launch time per layer, piecewise and without graphs.
        graph_tokens: largest batch, in query tokens, that has a graph; 0 for none.
        full_graph: uniform batches (all decoding, or all verifying, with one width) run as one graph.
        draft_full_graph: the same for the drafter's passes.
        draft_pass_host_s: host time between the drafter's passes.
        reserve_bytes: GPU memory lost to the CUDA context, graphs and collectives.
        planned_ahead: steps planned before the results of the one under way are known: 1 with asynchronous scheduling.
        pads_prompts: whether attention ranks in lockstep pad to the largest of them in steps with prefill too, where
            these run in graphs (vLLM); otherwise only in steps of decoding alone (SGLang).
        max_block_steps: longest block of steps the simulator takes at once; results do not depend on it.
        source: where the constants come from.
    """

    name: str
    step_host_s: float
    sequence_host_s: float
    sample_s: float
    reject_s: float
    layer_host_s: float
    eager_layer_host_s: float
    graph_tokens: int
    full_graph: bool
    draft_full_graph: bool
    draft_pass_host_s: float
    reserve_bytes: float
    round_host_s: float = 0.0
    draft_token_host_s: float = 0.0
    planned_ahead: int = 0
    pads_prompts: bool = True
    max_block_steps: int = 4096
    source: str = ""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, float) and not 0 <= value < np.inf:
                raise ValueError(f"engine.{name} must be >= 0 and finite, got {value}")
        if self.graph_tokens < 0:
            raise ValueError(f"engine.graph_tokens must be >= 0 (0: no graphs), got {self.graph_tokens}")
        if self.planned_ahead not in {0, 1}:
            raise ValueError(f"engine.planned_ahead must be 0 or 1 (asynchronous scheduling), got {self.planned_ahead}")
        if self.max_block_steps < 1:
            raise ValueError(f"engine.max_block_steps must be >= 1, got {self.max_block_steps}")

    def padded_tokens(self, tokens: Count) -> Count:
        """Tokens after padding to a graph's size: 1, 2, 4, then steps of 8 to 256 and of 16 beyond (vLLM's sizes)."""
        count = np.asarray(tokens)
        eights, sixteens = -(-count // 8) * 8, -(-count // 16) * 16
        padded = np.where(count > 256, sixteens, np.where(count > 4, eights, np.where(count == 3, 4, count)))
        result: Count = np.where(padded > self.graph_tokens, count, padded)[()]
        return result

    def launch_s(self, layers: int, tokens: Count, uniform: Count, full_graph: bool) -> Seconds:
        """Host time to launch a forward pass of `layers` layers over `tokens` query tokens.

        `uniform` says whether (1 or 0) the batch has one width and so may use a full graph, if the engine has them.
        """
        graphed = np.asarray(self.padded_tokens(tokens)) <= self.graph_tokens
        piecewise = np.where(np.logical_and(full_graph, uniform), 0.0, layers * self.layer_host_s)
        result: Seconds = np.where(graphed, piecewise, layers * self.eager_layer_host_s)[()]
        return result


def read_engine(name: str) -> Engine:
    """The engine preset `name` of `conf/engine/`; an unknown name is a ValueError that lists the known ones."""
    return read_named(data_dir("conf") / "engine", name, Engine, "engine")
