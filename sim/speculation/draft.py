"""Drafters: who proposes the draft tokens, and what that takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from sim.catalogue import load_model
from sim.cost.drafting import Drafting
from sim.model import Model
from sim.speculation.length import MOST_DRAFTS, Offers


@dataclass(kw_only=True, slots=True)
class Drafter(ABC):
    """A way to propose draft tokens."""

    @abstractmethod
    def drafting(self, drafts: int) -> Drafting:
        """The passes and the host time of a round that proposes `drafts` tokens (of a tree: its depth)."""

    @abstractmethod
    def lookahead_tokens(self, drafts: int) -> int:
        """KV slots an engine reserves per sequence for the drafter's own writes."""

    @property
    def most_drafts(self) -> int:
        """The longest draft it can propose."""
        return MOST_DRAFTS

    @property
    def reads_hidden_states(self) -> bool:
        """Whether it drafts from the target's hidden states, which a prefix cache does not hold."""
        return False

    def draft_for(self, target: Model) -> Model | None:
        """The model that drafts, with its own weights and KV; None where none does."""
        return None

    def ranks(self, target_ranks: int) -> int:
        """GPUs the draft model is cut over, where the target is cut over `target_ranks`."""
        return target_ranks

    def offers(self) -> Offers | None:
        """How many drafts each round really has, for a drafter that may find none; None where it always has all."""
        return None

    def verify_tokens(self, drafts: int) -> int:
        """Query tokens of a sequence in verification: the last committed token and the drafts."""
        return drafts + 1

    def check_length(self, drafts: int) -> None:
        """Raise ValueError where `drafts` is longer than it can propose."""
        if drafts > self.most_drafts:
            raise ValueError(
                f"speculation.length asks for {drafts} drafts, but {type(self).__name__} proposes at most "
                f"{self.most_drafts}; ask for fewer, or change speculation.drafter"
            )


@dataclass(kw_only=True, slots=True)
class PlacedDrafter(Drafter):
    """A drafter with weights, which lie on one GPU or on all of them.

    Attributes:
        tensor_parallel: GPUs it runs on, 1 or the target's; 0 means the target's (`draft_tensor_parallel_size`). On one
            GPU the others idle while it drafts, and their memory for it stays unused.
        eager: its passes run without CUDA graphs.
    """

    tensor_parallel: int = 0
    eager: bool = False

    def __post_init__(self) -> None:
        if self.tensor_parallel < 0:
            raise ValueError(f"speculation.drafter.tensor_parallel must be >= 0, got {self.tensor_parallel}")

    def ranks(self, target_ranks: int) -> int:
        """1 or `target_ranks`.

        Raises:
            ValueError: `tensor_parallel` is another number.
        """
        ranks = self.tensor_parallel or target_ranks
        if ranks not in {1, target_ranks}:
            raise ValueError(
                f"speculation.drafter.tensor_parallel must be 1 or cluster.tensor_parallel = {target_ranks}, "
                f"got {ranks}"
            )
        return ranks

    def lookahead_tokens(self, drafts: int) -> int:
        """One slot per draft (vLLM `num_lookahead_tokens`)."""
        return drafts


@dataclass(kw_only=True, slots=True)
class DraftModel(PlacedDrafter):
    """A smaller model of the same vocabulary with its own KV cache.

    As in vLLM it runs after sampling, for the next step: one pass over the verified positions (rejected ones
    included, masked) and the prompt chunks, then drafts - 1 passes of one token. Every step pays it, so the last
    drafts of a request are wasted. With 0 drafts the first pass remains, which keeps the draft's KV complete.

    Attributes:
        model: catalogue name or path of a config.json; "" means the draft paired with the target in the catalogue.
    """

    model: str = ""

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

    def drafting(self, drafts: int) -> Drafting:
        """The catch-up pass and the remaining single-token passes."""
        return Drafting(catch_up=True, passes=max(0, drafts - 1), eager=self.eager)
