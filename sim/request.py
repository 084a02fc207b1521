"""What a client sends: the one noun that every stage of a run shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

SENT_AT_ARRIVAL = -1
"""In `Requests.after`: follows no other request."""

_COLUMNS = (
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "group",
    "block_ids",
    "generated_block_ids",
    "after",
    "think_s",
    "cancel_s",
    "priority",
    "source_line",
)


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """A request stream as columns, sorted by arrival (equal arrivals keep their order); row i is request i.

    Attributes:
        arrival_s: float64 (n,), seconds since the start of the run, non-decreasing, >= 0; all 0 with `concurrency`.
            Where a request follows another this is the earliest instant only: when all before are answered at once.
        prompt_tokens: int64 (n,), >= 1.
        output_tokens: int64 (n,), >= 1.
        group: int32 (n,) index into `groups` (data set, client or SLO class).
        groups: names of the groups.
        block_ids: per request the ids of its prompt's prefix blocks, or None where the workload knows none.
        block_tokens: prompt tokens per prefix block id (0 where there are none).
        generated_block_ids: per request the ids of the blocks that its output fills, which go on from the prompt's full
            blocks: a later prompt that holds this answer names them. None where no prompt holds an answer.
        concurrency: 0 for an open stream. In a closed loop, how many requests are in flight at once: request i is sent
            the moment an earlier one finishes.
        after: int64 (n,), the earlier request whose end sends this one, -1 for one that is sent at `arrival_s`. Several
            may follow the same one. None where no request follows another; not together with `concurrency`.
        think_s: float64 (n,), seconds from that end (the last token, or the client's giving up) to this arrival, >= 0;
            0 where `after` is -1. None without `after`.
        cancel_s: float64 (n,), seconds after arrival at which the client gives up unless the request has ended, > 0,
            inf for never. None where no client gives up.
        priority: int64 (n,), the smaller is served first, as vLLM counts. None where all are equal.
        dropped: how many rows of the source were left out, as (reason, count).
        source: the file the stream was read from, "" where there is none.
        source_line: int64 (n,), the line of `source` that holds request i, or None where no line does.

    Raises:
        ValueError: a column breaks one of the bounds above; the message names the column and the first bad request.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    group: NDArray[np.int32]
    groups: tuple[str, ...] = ("all",)
    block_ids: tuple[NDArray[np.int64], ...] | None = None
    block_tokens: int = 0
    generated_block_ids: tuple[NDArray[np.int64], ...] | None = None
    concurrency: int = 0
    after: NDArray[np.int64] | None = None
    think_s: NDArray[np.float64] | None = None
    cancel_s: NDArray[np.float64] | None = None
    priority: NDArray[np.int64] | None = None
    dropped: tuple[tuple[str, int], ...] = ()
    source: str = ""
    source_line: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        for name in _COLUMNS:
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"requests.{name} must have {n} rows like arrival_s, got {len(column)}")
        with np.errstate(invalid="ignore"):
            gap_s = np.diff(self.arrival_s, prepend=0.0)
        self._refuse("arrival_s", ~np.isfinite(self.arrival_s), "must be finite")
        self._refuse("arrival_s", gap_s < 0, "must be >= 0 and non-decreasing")
        self._refuse("prompt_tokens", self.prompt_tokens < 1, "must be >= 1")
        self._refuse("output_tokens", self.output_tokens < 1, "must be >= 1")
        self._refuse(
            "group", (self.group < 0) | (self.group >= len(self.groups)), f"must index {len(self.groups)} groups"
        )
        if (self.block_ids is None) != (self.block_tokens == 0):
            raise ValueError(f"requests.block_tokens must be > 0 with block_ids and 0 without, got {self.block_tokens}")
        if self.generated_block_ids is not None and self.block_ids is None:
            raise ValueError("requests.generated_block_ids has no effect without block_ids; leave it out")
        if self.cancel_s is not None:
            self._refuse("cancel_s", ~(self.cancel_s > 0), "must be > 0 (inf: never)")
        self._check_chains()
        if self.concurrency < 0:
            raise ValueError(f"requests.concurrency must be >= 0, got {self.concurrency}")
        if self.concurrency:
            self._refuse("arrival_s", self.arrival_s > 0, "must be 0 in a closed loop (concurrency > 0)")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def take(self, keep: NDArray[np.bool_]) -> Requests:
        """The requests where the mask `keep` (n,) holds, in their order; whatever describes the stream stays.

        What followed a dropped request follows the one before it, as if the dropped one had been answered at once.
        """
        rows = np.flatnonzero(keep)
        kept: dict[str, Any] = {}
        for name in _COLUMNS:
            column = getattr(self, name)
            if isinstance(column, tuple):
                kept[name] = tuple(column[row] for row in rows)
            elif column is not None:
                kept[name] = column[rows]
        if self.after is not None and self.think_s is not None:
            kept["after"], kept["think_s"] = _relink(self.after, self.think_s, keep)
        return replace(self, **kept)

    def where(self, index: int) -> str:
        """What to call request `index` in a message: its number and, where known, file and line."""
        if self.source_line is None:
            return f"request {index}"
        return f"{self.source}:{self.source_line[index]}: request {index}"

    def _check_chains(self) -> None:
        if (self.after is None) != (self.think_s is None):
            raise ValueError("requests.after and think_s must be given together, or neither; got one of them")
        if self.after is None or self.think_s is None:
            return
        first = self.after == SENT_AT_ARRIVAL
        later = (self.after < SENT_AT_ARRIVAL) | (self.after >= np.arange(len(self)))
        self._refuse("after", later, "must be the index of an earlier request, or -1")
        self._refuse("think_s", ~((self.think_s >= 0) & np.isfinite(self.think_s)), "must be finite and >= 0")
        self._refuse("think_s", first & (self.think_s > 0), "must be 0 where after is -1")
        if self.concurrency:
            raise ValueError(f"requests.concurrency must be 0 where requests follow others, got {self.concurrency}")

    def _refuse(self, name: str, bad: NDArray[np.bool_], bound: str) -> None:
        if bad.any():
            index = int(np.argmax(bad))
            raise ValueError(f"requests.{name} {bound}, got {getattr(self, name)[index]} for request {index}")


def _relink(
    after: NDArray[np.int64], think_s: NDArray[np.float64], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`after` and `think_s` of the kept requests, past those dropped: think times add up along the way."""
    after, think_s = after.copy(), think_s.copy()
    while (orphans := np.flatnonzero(keep & (after >= 0) & ~keep[after])).size:
        lost = after[orphans]
        after[orphans] = after[lost]
        think_s[orphans] += think_s[lost]
    number = np.cumsum(keep) - 1
    first = after == SENT_AT_ARRIVAL
    return np.where(first, SENT_AT_ARRIVAL, number[after])[keep], np.where(first, 0.0, think_s)[keep]
