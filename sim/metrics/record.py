"""The Recorder: times of requests and blocks of steps, in columns of whole ticks."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from struct import Struct
from typing import Any

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
_PACKED = Struct(f"={len(BLOCK_COLUMNS)}q")
_EMITTED = BLOCK_COLUMNS.index("emitted_tokens") - len(BLOCK_COLUMNS)

_ROOM_ROWS = 1 << 16
"""Rows that wait to be stored in as few bytes as their values need."""


def column(requests: int, value: int, kind: str = "q") -> array[int]:
    """A figure per request, `value` each: ticks take 64 bits, counts ("i") 32."""
    return array(kind, [value]) * requests


class Transfers:
    """Where the KV of each request came from, and from when to when it was sent, in columns by request."""

    def __init__(self, requests: int) -> None:
        self.sender = column(requests, NOT_YET)
        self.start = column(requests, NOT_YET)
        self.there = column(requests, NOT_YET)


class Recorder:
    """Columns by request id, and one row per block of steps.

    Block columns: `start` and `end` in ticks; `steps` in the block; `drafts` asked for per sequence and round;
    `verify_tokens` (query tokens of the decoding sequences) and `context_tokens` summed over its steps; the
    prefill moments as in `StepShape` (a block with prefill has one step); tokens emitted; requests waiting and KV
    blocks needed at its start.
    """

    def __init__(self, requests: int, keep_steps: bool) -> None:
        self.arrival = column(requests, NOT_YET)
        self.first_token = column(requests, NOT_YET)
        self.finish = column(requests, NOT_YET)
        self.replica = column(requests, NOT_YET, "i")
        self.admitted = column(requests, NOT_YET)
        self.rounds = column(requests, 0, "i")
        self.accepted = column(requests, 0, "i")
        self.drafted = column(requests, 0, "i")
        self.preemptions = column(requests, 0, "i")
        self.hit_tokens = column(requests, 0, "i")
        self.cancelled = column(requests, NOT_YET)
        self.lost = column(requests, NOT_YET)
        self.retries = column(requests, 0, "i")
        self.wasted = column(requests, 0, "i")
        self.outages: list[tuple[int, int, int]] = []
        self.transfers: Transfers | None = None
        self.keep_steps = keep_steps
        self._blocks = array("q")
        self._stored: list[list[NDArray[np.integer[Any]]]] = []
        self._context = array("q")
        self._step_ticks = array("q")

    def block(self, row: tuple[int, ...]) -> None:
        """One block; the values are BLOCK_COLUMNS in order."""
        if len(self._blocks) >= _ROOM_ROWS * len(BLOCK_COLUMNS):
            self._stored.append([_narrow(values) for values in self._waiting_rows().T])
            self._blocks = array("q")
        self._blocks.frombytes(_PACKED.pack(*row))

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
        return not self._blocks and not self._stored

    @property
    def last_emitted(self) -> int:
        """Tokens emitted in the last block."""
        return self._blocks[_EMITTED]

    def drop_steps_without_block(self) -> None:
        """After an interruption between `steps` and `block`: every step belongs to a block again."""
        if self.keep_steps:
            kept = int(self.column("steps").sum())
            del self._context[kept:], self._step_ticks[kept:]

    def blocks(self) -> dict[str, NDArray[np.int64]]:
        """All blocks, column by column."""
        return {name: self.column(name) for name in BLOCK_COLUMNS}

    def column(self, name: str) -> NDArray[np.int64]:
        """One figure of all blocks."""
        i = BLOCK_COLUMNS.index(name)
        return np.concatenate([*(part[i] for part in self._stored), self._waiting_rows()[:, i]], dtype=np.int64)

    def parts(self) -> Iterator[dict[str, NDArray[np.int64]]]:
        """All blocks, some at a time."""
        for part in self._stored:
            yield {name: values.astype(np.int64) for name, values in zip(BLOCK_COLUMNS, part, strict=True)}
        yield {name: values.copy() for name, values in zip(BLOCK_COLUMNS, self._waiting_rows().T, strict=True)}

    def _waiting_rows(self) -> NDArray[np.int64]:
        return np.frombuffer(self._blocks, dtype=np.int64).reshape(-1, len(BLOCK_COLUMNS))

    def step_contexts(self) -> NDArray[np.int64]:
        """Cached tokens before every step, blocks in order; empty unless steps are kept."""
        return np.frombuffer(self._context, dtype=np.int64).copy()

    def step_ticks(self) -> NDArray[np.int64]:
        """Ticks of every step, blocks in order; empty unless steps are kept."""
        return np.frombuffer(self._step_ticks, dtype=np.int64).copy()


def _narrow(values: NDArray[np.int64]) -> NDArray[np.integer[Any]]:
    """The same values in as few bytes as they need."""
    kind = np.result_type(np.min_scalar_type(int(values.min())), np.min_scalar_type(int(values.max())))
    narrow: NDArray[np.integer[Any]] = values.astype(kind)
    return narrow
