"""The price of a step: target forward pass, rejection, drafting, host. Nothing else in the project prices one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sim.cost.forward import ForwardCost
from sim.cost.host import Engine
from sim.cost.shape import Seconds, StepShape
from sim.cost.work import Work

LOGIT_BYTES = 4
"""Samplers read fp32 logits."""


class DraftPasses(Protocol):
    """The part of a drafter that the price of a step needs."""

    def passes(self, shape: StepShape, drafts: int) -> list[tuple[StepShape, int]]:
        """The passes that propose `drafts` tokens in a step of this shape, each with how often it runs."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Prices whole steps of one deployment, vectorised over the shape.

    Attributes:
        target: the target model's forward pass.
        engine: the host side.
        drafts: draft tokens per round, 0 without SD.
        draft: the draft model's forward pass, where the drafter has a model.
        drafter: its passes.
    """

    target: ForwardCost
    engine: Engine
    drafts: int = 0
    draft: ForwardCost | None = None
    drafter: DraftPasses | None = None

    def families(self, shape: StepShape) -> dict[str, Seconds]:
        """Seconds per op family of the target, then `draft`, `rejection` and `host`; they sum to the step."""
        uniform = np.equal(shape.chunks, 0)
        padded = self.engine.padded_tokens(shape.tokens)
        families = self.target.families(shape, padded)
        gpu_s = sum(families.values())
        launch_s = self.engine.launch_s(self.target.model.layer_count, shape.tokens, uniform, self.engine.full_graph)
        active = shape.sequences + shape.chunks
        families["draft"] = self._draft_s(shape)
        families["rejection"] = self.sampling_s(shape)
        families["host"] = (
            np.maximum(launch_s - gpu_s, 0.0) + self.engine.step_host_s + self.engine.sequence_host_s * active
        )
        return families

    def seconds(self, shape: StepShape) -> Seconds:
        """Seconds of the step."""
        return sum(self.families(shape).values())

    def phases(self, shape: StepShape) -> dict[str, Seconds]:
        """Seconds spent on draft, verify (or decode), reject (or sample), prefill and host.

        Families that see tokens are shared between verification and prefill by their tokens.
        """
        families = self.families(shape)
        prefill_share = np.asarray(shape.prefill_tokens) / np.maximum(shape.tokens, 1)
        tokenwise = sum(
            seconds
            for name, seconds in families.items()
            if name not in {"attention_prefill", "attention_decode", "draft", "rejection", "host"}
        )
        return {
            "draft": families["draft"],
            "verify": families["attention_decode"] + tokenwise * (1.0 - prefill_share),
            "reject": families["rejection"],
            "prefill": families["attention_prefill"] + tokenwise * prefill_share,
            "host": families["host"],
        }

    def target_step_s(self, shape: StepShape, width: int) -> Seconds:
        """T_T(B, width): the target's pass over the decoding sequences of `shape` alone, padded and launched."""
        decoding = StepShape(sequences=shape.sequences, width=width, context_tokens=shape.context_tokens)
        return self._forward_s(self.target, decoding, self.engine.full_graph)

    def draft_pass_s(self, shape: StepShape) -> Seconds:
        """One pass of the draft model, without the host time between passes."""
        assert self.draft is not None
        return self._forward_s(self.draft, shape, self.engine.draft_full_graph)

    def _forward_s(self, forward: ForwardCost, shape: StepShape, full_graph: bool) -> Seconds:
        """A pass as the engine runs it: padded to a graph, no faster than it is launched."""
        uniform = np.equal(shape.chunks, 0)
        gpu_s = forward.seconds(shape, self.engine.padded_tokens(shape.tokens))
        return np.maximum(gpu_s, self.engine.launch_s(forward.model.layer_count, shape.tokens, uniform, full_graph))

    def _draft_s(self, shape: StepShape) -> Seconds:
        if not self.drafts or self.drafter is None or self.draft is None:
            return 0.0 * np.asarray(shape.tokens)
        total: Seconds = 0.0
        for draft_shape, times in self.drafter.passes(shape, self.drafts):
            if times:
                total = total + times * (self.draft_pass_s(draft_shape) + self.engine.draft_pass_host_s)
        return total

    def sampling_s(self, shape: StepShape) -> Seconds:
        """Sampling of every logit row, or rejection; nothing where the step emits nothing."""
        rows = np.asarray(shape.logit_rows, dtype=np.float64)
        work = Work(bytes=rows * float(self.target.model.vocab * LOGIT_BYTES))
        constants = self.target.constants.sampling
        fixed_s = self.engine.reject_s if self.drafts else self.engine.sample_s
        peaks = self.target.peaks("bf16")
        return constants.seconds(work, peaks) + np.where(rows > 0, fixed_s, 0.0)[()]
