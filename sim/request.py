"""What a client sends: the one noun that every stage of a run shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """A request stream as columns, sorted by arrival (equal arrivals keep their order); row i is request i.

    Attributes:
        arrival_s: float64 (n,), seconds since the start of the run, non-decreasing, >= 0; all 0 in a closed loop.
        prompt_tokens: int64 (n,), >= 1.
        output_tokens: int64 (n,), >= 1.
        group: int32 (n,) index into `groups` (data set, client or SLO class).
        groups: names of the groups.
        block_ids: per request the ids of its prompt's prefix blocks, or None where the workload knows none.
        block_tokens: prompt tokens per prefix block id (0 where there are none).
        concurrency: 0 for an open stream. In a closed loop, how many requests are in flight at once: request i is sent
            the moment an earlier one finishes.
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
    concurrency: int = 0
    dropped: tuple[tuple[str, int], ...] = ()
    source: str = ""
    source_line: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        for name in ("prompt_tokens", "output_tokens", "group", "block_ids", "source_line"):
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
        if self.concurrency < 0:
            raise ValueError(f"requests.concurrency must be >= 0, got {self.concurrency}")
        if self.concurrency:
            self._refuse("arrival_s", self.arrival_s > 0, "must be 0 in a closed loop (concurrency > 0)")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def take(self, keep: NDArray[np.bool_]) -> Requests:
        """The requests where the mask `keep` (n,) holds, in their order; whatever describes the stream stays."""
        blocks = self.block_ids
        return replace(
            self,
            arrival_s=self.arrival_s[keep],
            prompt_tokens=self.prompt_tokens[keep],
            output_tokens=self.output_tokens[keep],
            group=self.group[keep],
            block_ids=None if blocks is None else tuple(blocks[i] for i in np.flatnonzero(keep)),
            source_line=None if self.source_line is None else self.source_line[keep],
        )

    def where(self, index: int) -> str:
        """What to call request `index` in a message: its number and, where known, file and line."""
        if self.source_line is None:
            return f"request {index}"
        return f"{self.source}:{self.source_line[index]}: request {index}"

    def _refuse(self, name: str, bad: NDArray[np.bool_], bound: str) -> None:
        if bad.any():
            index = int(np.argmax(bad))
            raise ValueError(f"requests.{name} {bound}, got {getattr(self, name)[index]} for request {index}")
