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
    "verify_tokens",
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
_EMITTED = BLOCK_COLUMNS.index("emitted_tokens") - len(BLOCK_COLUMNS)


class Transfers:
    """Where the KV of each request came from, and from when to when it was sent, in columns by request."""

    def __init__(self, requests: int) -> None:
        self.sender = [NOT_YET] * requests
        self.start = [NOT_YET] * requests
        self.there = [NOT_YET] * requests


class Recorder:
    """Columns by request id, and one row per block of steps.

    Block columns: `start` and `end` in ticks; `steps` in the block; `drafts` asked for per sequence and round;
    `verify_tokens` (query tokens of the decoding sequences) and `context_tokens` summed over its steps; the
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
        self.drafted = [0] * requests
        self.preemptions = [0] * requests
        self.hit_tokens = [0] * requests
        self.cancelled = [NOT_YET] * requests
        self.lost = [NOT_YET] * requests
        self.retries = [0] * requests
        self.wasted = [0] * requests
        self.outages: list[tuple[int, int, int]] = []
        self.transfers: Transfers | None = None
        self.keep_steps = keep_steps
        self._blocks = array("q")
        self._context = array("q")
        self._step_ticks = array("q")

    def block(self, row: tuple[int, ...]) -> None:
        """One block; the values are BLOCK_COLUMNS in order."""
        self._blocks.extend(row)

    def steps(self, context: NDArray[np.int64], ticks: NDArray[np.int64]) -> None:
        """Cached tokens before each step of the coming block row, and the ticks each takes."""
        self._context.frombytes(context.tobytes())
        self._step_ticks.frombytes(ticks.tobytes())

    def step(self, context: int, ticks: int) -> None:
        """`steps` for a single one."""
        self._context.append(context)
        self._step_ticks.append(ticks)

    @property
    def is_empty(self) -> bool:
        """Whether no block has been written yet."""
        return not self._blocks

    @property
    def last_emitted(self) -> int:
        """Tokens emitted in the last block."""
        return self._blocks[_EMITTED]

    def drop_steps_without_block(self) -> None:
        """After an interruption between `steps` and `block`: every step belongs to a block again."""
        if self.keep_steps:
            kept = int(self.blocks()["steps"].sum())
            del self._context[kept:], self._step_ticks[kept:]

    def blocks(self) -> dict[str, NDArray[np.int64]]:
        """All blocks, column by column."""
        table = np.frombuffer(self._blocks, dtype=np.int64).reshape(-1, len(BLOCK_COLUMNS))
        return {name: table[:, i].copy() for i, name in enumerate(BLOCK_COLUMNS)}

    def step_contexts(self) -> NDArray[np.int64]:
        """Cached tokens before every step, blocks in order; empty unless steps are kept."""
        return np.frombuffer(self._context, dtype=np.int64).copy()

    def step_ticks(self) -> NDArray[np.int64]:
        """Ticks of every step, blocks in order; empty unless steps are kept."""
        return np.frombuffer(self._step_ticks, dtype=np.int64).copy()
