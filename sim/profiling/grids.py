"""Which sizes the campaigns time: the shapes serving meets, and a coarse choice of them for a first look."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Sizes per axis.

    Attributes:
        tokens: query tokens of a step, for all that sees tokens alone.
        routings: how tokens choose experts (`sim.profiling.experts.route`), beside pools of the expert counts below.
        experts: E of the layers timed beside the model's own, with its other widths.
        prompts, histories: new and cached tokens of a prefill chunk.
        prefill_batches: chunks per step.
        batches: sequences in decode or verification.
        widths: query tokens per sequence in verification.
        contexts: cached tokens per sequence.
        most_cached_tokens: largest batch x context; what lies above is left out.
        step_batches, step_widths, step_contexts: the same for whole steps and SD rounds.
        message_bytes: of collectives.
    """

    tokens: tuple[int, ...]
    routings: tuple[str, ...]
    experts: tuple[int, ...]
    prompts: tuple[int, ...]
    histories: tuple[int, ...]
    prefill_batches: tuple[int, ...]
    batches: tuple[int, ...]
    widths: tuple[int, ...]
    contexts: tuple[int, ...]
    most_cached_tokens: int
    step_batches: tuple[int, ...]
    step_widths: tuple[int, ...]
    step_contexts: tuple[int, ...]
    message_bytes: tuple[int, ...]


FULL = Grid(
    tokens=(1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192),
    routings=("uniform", "zipf_0.5", "zipf_1.0"),
    experts=(8, 64, 128),
    prompts=(128, 512, 1024, 2048, 4096, 8192, 16384),
    histories=(0, 4096, 16384),
    prefill_batches=(1, 4),
    batches=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    widths=(1, 2, 3, 4, 5, 6, 8, 12, 16),
    contexts=(1, 256, 1024, 4096, 16384, 65536),
    most_cached_tokens=1 << 22,
    step_batches=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    step_widths=(1, 2, 3, 4, 5, 6, 8),
    step_contexts=(512, 2048, 8192),
    message_bytes=tuple(1 << power for power in range(10, 29)),
)

QUICK = Grid(
    tokens=(1, 16, 256),
    routings=("uniform", "zipf_1.0"),
    experts=(8, 64, 128),
    prompts=(64, 256),
    histories=(0, 256),
    prefill_batches=(1,),
    batches=(1, 8),
    widths=(1, 4, 16),
    contexts=(1, 256),
    most_cached_tokens=1 << 20,
    step_batches=(1, 4),
    step_widths=(1, 4),
    step_contexts=(64,),
    message_bytes=(1 << 10, 1 << 16),
)
