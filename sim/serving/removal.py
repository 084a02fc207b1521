"""Requests that leave a rank before they have finished: one between two steps, or all when the rank dies."""

from __future__ import annotations

from sim.metrics.record import Recorder
from sim.serving.block import Block
from sim.serving.rank import Rank
from sim.serving.sequence import Sequence


def remove(rank: Rank, sequence: Sequence, recorder: Recorder) -> int:
    """`sequence` was in the step that just ended and leaves. Returns how many tokens it had out.

    If it finished in that step its blocks are free already, or will be with the step planned meanwhile.
    """
    batch = rank.batch
    if sequence is rank.partial:
        rank.partial = None
        rank.pool.free(sequence, sequence.prefilled)
        return sequence.emitted
    if batch.sequences.get(sequence.request) is not sequence:
        return sequence.output_tokens
    if sequence.finished:
        batch.leave(sequence)
        return sequence.output_tokens
    emitted = sequence.emitted_before(batch.step)
    sequence.record_rounds(batch.step - sequence.joined, recorder)
    batch.leave(sequence)
    rank.pool.free(sequence, sequence.prompt_tokens + emitted - 1)
    return emitted


def evacuate(rank: Rank, block: Block | None, recorder: Recorder) -> list[Sequence]:
    """Every unfinished request of a rank that dies in `block`, in order of number, with its tokens out in `emitted`."""
    held = {sequence.request: sequence for sequence in rank.waiting}
    if rank.partial is not None:
        held[rank.partial.request] = rank.partial
    for chunk in block.chunks if block is not None else ():
        held[chunk.sequence.request] = chunk.sequence
    for sequence in rank.batch.sequences.values():
        if not sequence.finished:
            sequence.record_rounds(rank.batch.step - sequence.joined, recorder)
            sequence.preempt(rank.batch.step)
            held[sequence.request] = sequence
    return [held[request] for request in sorted(held)]
