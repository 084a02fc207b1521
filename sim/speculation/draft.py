"""Drafters: who proposes the draft tokens, and which passes that takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from sim.catalogue import load_model
from sim.cost.shape import StepShape
from sim.model import Model


@dataclass(kw_only=True, slots=True)
class Drafter(ABC):
    """A way to propose draft tokens."""

    @abstractmethod
    def passes(self, shape: StepShape, drafts: int) -> list[tuple[StepShape, int]]:
        """The passes that propose `drafts` tokens in a step of this shape, each with how often it runs."""

    @abstractmethod
    def lookahead_tokens(self, drafts: int) -> int:
        """KV slots an engine reserves per sequence for the drafter's own writes."""


@dataclass(kw_only=True, slots=True)
class DraftModel(Drafter):
    """A smaller model of the same vocabulary with its own KV cache.

    As in vLLM it runs after sampling, for the next step: one pass over the verified positions (rejected ones
    included, masked) and the prompt chunks, then drafts - 1 passes of one token. Every step pays it, so the last
    drafts of a request are wasted. Each pass needs the LM head for one position per sequence.

    Attributes:
        model: catalogue name or path of a config.json; "" means the draft paired with the target in the catalogue.
        tensor_parallel: GPUs it runs on, 1 or the target's; 0 means the target's (`draft_tensor_parallel_size`).
    """

    model: str = ""
    tensor_parallel: int = 0

    def __post_init__(self) -> None:
        if self.tensor_parallel < 0:
            raise ValueError(f"speculation.drafter.tensor_parallel must be >= 0, got {self.tensor_parallel}")

    def draft_for(self, target: Model) -> Model:
        """The draft model.

        Raises:
            ValueError: none is named and the target has no paired one, or the vocabularies differ.
        """
        name = self.model or target.draft
        if not name:
            raise ValueError(
                f"speculation.drafter.model must be set: {target.name} has no paired draft model; or speculation=off"
            )
        model = load_model(name, "speculation.drafter.model")
        if model.vocab != target.vocab:
            raise ValueError(
                f"speculation.drafter.model must share the vocabulary of {target.name}, {target.vocab} tokens, "
                f"got {model.name} with {model.vocab}"
            )
        return model

    def passes(self, shape: StepShape, drafts: int) -> list[tuple[StepShape, int]]:
        """Catch-up pass and the remaining single-token passes."""
        proposing = shape.sequences + shape.completed
        first = StepShape(
            sequences=shape.sequences,
            width=shape.width,
            context_tokens=shape.context_tokens,
            chunks=shape.chunks,
            prefill_tokens=shape.prefill_tokens,
            prefill_history_tokens=shape.prefill_history_tokens,
            prefill_pairs=shape.prefill_pairs,
            completed=shape.completed,
            logits=proposing,
        )
        cached = shape.context_tokens + shape.decode_tokens + shape.prefill_tokens + shape.prefill_history_tokens
        return [(first, 1), (StepShape(sequences=proposing, context_tokens=cached), drafts - 1)]

    def lookahead_tokens(self, drafts: int) -> int:
        """One slot per draft (vLLM `num_lookahead_tokens`)."""
        return drafts
