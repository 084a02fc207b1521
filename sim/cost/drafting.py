"""What drafting takes in every step, as data: the passes of the drafter and its time on the host."""

from __future__ import annotations

from dataclasses import dataclass

from sim.cost.shape import Count, StepShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafting:
    """The passes that propose the drafts of one round.

    Attributes:
        catch_up: a first pass over the verified positions (rejected ones included, masked) and the prompt chunks.
        first_extra: query tokens that it adds to each proposing sequence: the masked positions of a parallel draft.
        first_rows: rows of logits of each proposing sequence in it.
        passes: passes after it, over the proposing sequences alone.
        pass_width: query tokens of each sequence in those.
        pass_rows: rows of logits of each sequence in those.
        eager: no pass has a CUDA graph (vLLM: the drafter under `enforce_eager`).
        host_s: host time of a round that nothing hides.
        sequence_host_s: the same, per proposing sequence.
    """

    catch_up: bool = False
    first_extra: int = 0
    first_rows: int = 1
    passes: int = 0
    pass_width: int = 1
    pass_rows: int = 1
    eager: bool = False
    host_s: float = 0.0
    sequence_host_s: float = 0.0

    def first(self, shape: StepShape) -> StepShape:
        """The catch-up pass in a step of this shape; it needs the LM head for the sequences that propose."""
        masked = shape.completed * self.first_extra
        return StepShape(
            sequences=shape.sequences,
            width=shape.width + self.first_extra,
            context_tokens=shape.context_tokens,
            chunks=shape.chunks,
            prefill_tokens=shape.prefill_tokens + masked,
            prefill_history_tokens=shape.prefill_history_tokens,
            prefill_pairs=shape.prefill_pairs,
            completed=shape.completed,
            logits=(shape.sequences + shape.completed) * self.first_rows,
        )

    def later(self, shape: StepShape) -> StepShape:
        """Each pass after it: the decoding sequences and those whose prompt is complete, over all that is cached."""
        proposing = shape.sequences + shape.completed
        cached = shape.context_tokens + shape.decode_tokens + shape.prefill_tokens + shape.prefill_history_tokens
        return self.pass_over(proposing, cached)

    def pass_over(self, sequences: Count, context_tokens: Count) -> StepShape:
        """One pass over `sequences` that have `context_tokens` cached."""
        return StepShape(
            sequences=sequences,
            width=self.pass_width,
            context_tokens=context_tokens,
            logits=sequences * self.pass_rows,
        )
