"""The shape of a step: everything about a batch that its price depends on, as exact integer moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Count = int | float | NDArray[np.integer[Any]] | NDArray[np.floating[Any]]
Seconds = float | NDArray[np.floating[Any]]

Moments = tuple[int, int, int, int, int]
"""The prefill of one step: chunks, new tokens, history tokens, query-key pairs and completed prompts (`StepShape`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """One step, or many at once: every field is an int or an int64 array, and arrays of one shape broadcast.

    Attributes:
        sequences: sequences in decode or verification.
        width: query tokens of each of them (1 in plain decode, drafts + 1 in verification), the mean where they differ.
        context_tokens: cached tokens of all of them together, before the step.
        chunks: prefill chunks in the step.
        prefill_tokens: new prompt tokens of all chunks.
        prefill_history_tokens: tokens that the chunks' sequences have cached already.
        prefill_pairs: query-key pairs of the causal attention over the chunks, sum of q*h + q*(q+1)/2 for q new tokens
            over h cached ones.
        completed: chunks that complete a prompt and so sample a first token.
        logits: rows of the LM head where they are not one per query token of a decoding sequence and one per completed
            prompt (a drafter asks for its last position only).
    """

    sequences: Count = 0
    width: Count = 1
    context_tokens: Count = 0
    chunks: Count = 0
    prefill_tokens: Count = 0
    prefill_history_tokens: Count = 0
    prefill_pairs: Count = 0
    completed: Count = 0
    logits: Count | None = None

    @property
    def decode_tokens(self) -> Count:
        """Query tokens of the decoding sequences."""
        return self.sequences * self.width

    @property
    def tokens(self) -> Count:
        """Query tokens of the step."""
        return self.sequences * self.width + self.prefill_tokens

    @property
    def logit_rows(self) -> Count:
        """Rows of the LM head: every verified position, and one per completed prompt."""
        return self.sequences * self.width + self.completed if self.logits is None else self.logits
