"""Requests that follow one another: the columns of chains, turn by turn, in the order of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.request import SENT_AT_ARRIVAL

Whole = NDArray[np.int64]
Seconds = NDArray[np.float64]


@dataclass(slots=True)
class Chains:
    """Collects chains (a client's requests, a session's turns) one turn of all chains at a time.

    Attributes:
        earliest_s: float64 (chains,), when the last turn of each chain comes at the earliest.
    """

    earliest_s: Seconds
    _last: Whole = field(init=False)
    _columns: list[tuple[NDArray[np.generic], ...]] = field(init=False, default_factory=list)
    _rows: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._last = np.full(len(self.earliest_s), SENT_AT_ARRIVAL, np.int64)

    def add(self, chain: Whole, think_s: Seconds, prompt_tokens: Whole, output_tokens: Whole) -> None:
        """One more turn of the chains `chain` (k,), with no chain twice; think times count from the second turn on."""
        after = self._last[chain]
        think_s = np.where(after == SENT_AT_ARRIVAL, 0.0, think_s)
        self.earliest_s[chain] += think_s
        self._last[chain] = self._rows + np.arange(len(chain))
        self._rows += len(chain)
        self._columns.append((chain, self.earliest_s[chain], after, think_s, prompt_tokens, output_tokens))

    def columns(self) -> tuple[Whole, dict[str, NDArray[np.generic]]]:
        """Each row's chain (n,), and the columns of `Requests`, in order of the earliest arrival, turn and chain."""
        chain, arrival_s, after, think_s, prompt_tokens, output_tokens = (
            np.concatenate(parts) for parts in zip(*self._columns, strict=True)
        )
        order = np.argsort(arrival_s, kind="stable")
        number = np.empty(self._rows, np.int64)
        number[order] = np.arange(self._rows)
        columns = {
            "arrival_s": arrival_s[order],
            "prompt_tokens": prompt_tokens[order],
            "output_tokens": output_tokens[order],
            "group": np.zeros(self._rows, np.int32),
            "after": np.where(after == SENT_AT_ARRIVAL, SENT_AT_ARRIVAL, number[after])[order],
            "think_s": think_s[order],
        }
        return chain[order], columns
