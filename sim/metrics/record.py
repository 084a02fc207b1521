"""The Recorder: times of requests and blocks of steps, in columns of whole ticks."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

BLOCK_COLUMNS = (
    "replica",
    "start",
    "end",
    "steps",
    "sequences",
    "drafts",
    "context_tokens",
    "chunks",
    "prefill_tokens",
    "prefill_history_tokens",
    "prefill_pairs",
    "completed",
    "emitted_tokens",
    "waiting",
    "kv_blocks",
)
NOT_YET = -1


class Recorder:
    """Columns by request id, and one row per block of steps.

    Block columns: `start` and `end` in ticks; `steps` in the block; `context_tokens` summed over its steps; the
    prefill moments as in `StepShape` (a block with prefill has one step); tokens emitted; requests waiting and KV
    blocks needed at its start.
    """

    def __init__(self, requests: int, keep_steps: bool) -> None:
        self.arrival = [NOT_YET] * requests
        self.first_token = [NOT_YET] * requests
        self.finish = [NOT_YET] * requests
        self.replica = [NOT_YET] * requests
        self.admitted = [NOT_YET] * requests
        self.rounds = [0] * requests
        self.accepted = [0] * requests
        self.preemptions = [0] * requests
        self.keep_steps = keep_steps
        self._blocks = array("q")
        self._context = array("q")

    def block(self, *row: int) -> None:
        """One block; the values are BLOCK_COLUMNS in order."""
        self._blocks.extend(row)

    def contexts(self, context: NDArray[np.int64]) -> None:
        """Cached tokens before each step of the block just recorded."""
        self._context.frombytes(context.tobytes())

    def blocks(self) -> dict[str, NDArray[np.int64]]:
        """All blocks, column by column."""
        table = np.frombuffer(self._blocks, dtype=np.int64).reshape(-1, len(BLOCK_COLUMNS))
        return {name: table[:, i].copy() for i, name in enumerate(BLOCK_COLUMNS)}

    def step_contexts(self) -> NDArray[np.int64]:
        """Cached tokens before every step, blocks in order; empty unless steps are kept."""
        return np.frombuffer(self._context, dtype=np.int64).copy()
