"""What a static round says over context and batch: break-even acceptance lengths, best draft lengths, where SD pays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from sim.advise.static import StaticBatches
from sim.serving.kv import KvLayout

Grid = tuple[tuple[float | None, ...], ...]
"""Rows by context, columns by batch; None where the batch does not fit into the KV pool."""

_CONTEXTS = (512, 2048, 8192, 32768, 131072)


@dataclass(frozen=True, slots=True)
class Surfaces:
    """Static prices of one drafter.

    Attributes:
        contexts: cached tokens per sequence, growing; the workload's own among them.
        batches: sequences, growing.
        break_even: drafts -> acceptance length at which a round takes as long as its tokens would without SD.
        best_drafts: drafts of the most tokens per second, 0 for SD off; None also where the acceptance is unknown.
        best_speedup: tokens per second with these over those with SD off.
    """

    contexts: tuple[int, ...]
    batches: tuple[int, ...]
    break_even: dict[int, Grid]
    best_drafts: Grid
    best_speedup: Grid


@dataclass(frozen=True, slots=True)
class Range:
    """Batch sizes `first` to `last` in which the same thing holds: SD pays, or not."""

    first: int
    last: int
    pays: bool


def surfaces(static: StaticBatches, kv: KvLayout, context_tokens: int, *, acceptance_known: bool) -> Surfaces:
    """Surfaces as far as the model's context, the scheduler's batch and the KV pool `kv` reach."""
    contexts, batches = _contexts(static, context_tokens), _batches(static.experiment.scheduler.max_seqs)
    context, batch = np.array(contexts)[:, None], np.array(batches)[None, :]
    fits = batch * np.array([[kv.blocks_for(tokens + static.drafting.width)] for tokens in contexts]) <= kv.blocks
    lengths = range(1, static.experiment.drafts + 1)
    even = {drafts: static.break_even(drafts, batch, context) for drafts in lengths}
    gains = np.stack([np.ones(fits.shape), *(static.emitted[g] / even[g] for g in lengths)])
    known = fits & acceptance_known
    return Surfaces(
        contexts=tuple(contexts),
        batches=tuple(batches),
        break_even={drafts: _grid(values, fits) for drafts, values in even.items()},
        best_drafts=_grid(gains.argmax(axis=0), known),
        best_speedup=_grid(gains.max(axis=0), known),
    )


def paying_ranges(static: StaticBatches, context_tokens: int) -> list[Range]:
    """Where the best draft length beats SD off, by batch size at one context."""
    batches = np.arange(1, static.experiment.scheduler.max_seqs + 1)
    contexts = np.full_like(batches, context_tokens)
    lengths = range(1, static.experiment.drafts + 1)
    best = np.max([static.speedup(drafts, batches, contexts) for drafts in lengths], axis=0)
    runs = [(pays, [batch for batch, _ in found]) for pays, found in groupby(
        zip(batches.tolist(), (best > 1.0).tolist(), strict=True), key=lambda pair: pair[1])]  # fmt: skip
    return [Range(found[0], found[-1], pays) for pays, found in runs]


def _contexts(static: StaticBatches, own: int) -> list[int]:
    most = static.experiment.model.max_context_tokens
    return sorted({tokens for tokens in _CONTEXTS if tokens <= most} | {min(own, most)})


def _batches(most: int) -> list[int]:
    return sorted({2**k for k in range(most.bit_length())} | {most})


def _grid(values: np.ndarray, shown: np.ndarray) -> Grid:
    return tuple(
        tuple(value.item() if show else None for value, show in zip(row, seen, strict=True))
        for row, seen in zip(values, shown, strict=True)
    )
