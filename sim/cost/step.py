"""The price of a step: target forward pass, rejection, drafting, host. Nothing else in the project prices one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.cost.drafting import Drafting
from sim.cost.forward import ForwardCost
from sim.cost.host import Engine
from sim.cost.shape import Count, Seconds, StepShape
from sim.cost.work import Work

LOGIT_BYTES = 4
"""Samplers read fp32 logits."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Prices whole steps of one deployment, vectorised over the shape.

    Attributes:
        target: the target model's forward pass.
        engine: the host side.
        width: query tokens of each decoding sequence: 1 without SD, with it the verify width.
        draft: the draft model's forward pass, where the drafter has a model.
        drafting: what drafting takes; None without SD.
    """

    target: ForwardCost
    engine: Engine
    width: int = 1
    draft: ForwardCost | None = None
    drafting: Drafting | None = None

    def families(self, shape: StepShape, one_width: bool = True) -> dict[str, Seconds]:
        """Seconds per op family of the target, then `draft`, `rejection` and `host`; they sum to the step.

        `one_width` says whether all decoding sequences have the same width, as full CUDA graphs need.
        """
        uniform = np.logical_and(np.equal(shape.chunks, 0), one_width)
        padded = self.engine.padded_tokens(shape.tokens)
        families = self.target.families(shape, padded)
        gpu_s = sum(families.values())
        launch_s = self.engine.launch_s(self.target.model.layer_count, shape.tokens, uniform, self.engine.full_graph)
        active = shape.sequences + shape.chunks
        families["draft"] = self._draft_s(shape)
        families["rejection"] = self.sampling_s(shape)
        families["host"] = (
            np.maximum(launch_s - gpu_s, 0.0)
            + self.engine.step_host_s
            + (self.engine.round_host_s if self.drafting is not None else 0.0)
            + self.engine.sequence_host_s * active
            + self.engine.draft_token_host_s * (shape.decode_tokens - shape.sequences)
        )
        return families

    def seconds(self, shape: StepShape, one_width: bool = True) -> Seconds:
        """Seconds of the step."""
        return sum(self.families(shape, one_width).values())

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
        gpu_s = self.target.seconds(decoding, self.engine.padded_tokens(decoding.tokens))
        layers = self.target.model.layer_count
        return np.maximum(gpu_s, self.engine.launch_s(layers, decoding.tokens, 1, self.engine.full_graph))

    def draft_pass_s(self, shape: StepShape) -> Seconds:
        """One pass of the draft model, without the host time between passes."""
        assert self.draft is not None
        engine, layers = self.draft_engine, self.draft.model.layer_count
        gpu_s = self.draft.seconds(shape, engine.padded_tokens(shape.tokens))
        uniform = np.equal(shape.chunks, 0)
        return np.maximum(gpu_s, engine.launch_s(layers, shape.tokens, uniform, engine.draft_full_graph))

    def fusion_s(self, tokens: Count) -> Seconds:
        """What a draft head's first pass does before its layers: fuse hidden states of the target."""
        assert self.draft is not None
        return self.draft.fusion_s(tokens)

    @property
    def draft_engine(self) -> Engine:
        """The engine as the drafter's passes see it: without graphs where they are eager."""
        eager = self.drafting is not None and self.drafting.eager
        return replace(self.engine, graph_tokens=0) if eager else self.engine

    def _draft_s(self, shape: StepShape) -> Seconds:
        drafting = self.drafting
        if drafting is None:
            return 0.0 * np.asarray(shape.tokens)
        total: Seconds = drafting.host_s + drafting.sequence_host_s * (shape.sequences + shape.completed)
        if drafting.catch_up:
            total = total + self.draft_pass_s(drafting.first(shape)) + self.fusion_s(drafting.first(shape).tokens)
            total = total + self.engine.draft_pass_host_s
        if drafting.passes:
            pass_s = self.draft_pass_s(drafting.later(shape)) + self.engine.draft_pass_host_s
            total = total + drafting.passes * pass_s
        return total

    def sampling_s(self, shape: StepShape) -> Seconds:
        """Sampling of every logit row, or rejection; nothing where the step emits nothing."""
        rows = np.asarray(shape.logit_rows, dtype=np.float64)
        work = Work(bytes=rows * float(self.target.model.vocab * LOGIT_BYTES))
        constants = self.target.constants.sampling
        fixed_s = self.engine.reject_s if self.drafting is not None else self.engine.sample_s
        peaks = self.target.peaks("bf16")
        return constants.seconds(work, peaks) + np.where(rows > 0, fixed_s, 0.0)[()]
