"""The ledger of coming steps: what the running sequences will hold at every future step, as sums.

A sequence's future is known when it joins (`sim.serving.paths`), so a rank adds its path once and no later event costs
anything per sequence. Cached tokens are kept summed up over the steps, so that a block of them is one difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.serving.paths import Path

_ROOM_STEPS = 4096


class Ledger:
    """Sums over the running sequences on the rank's own step axis, kept from the present step on.

    Args:
        most_drafts: longest draft where rounds may differ in width, else 0.

    `_sums[i]` holds the cached tokens of all steps before step i, up to a constant that no difference sees. A path adds
    to the steps it runs in and to the one after; there `end` or `leave` take it back. Single entries are read through
    memory views, which numpy's own indexing is several times slower than.
    """

    def __init__(self, most_drafts: int = 0) -> None:
        self._origin = 0
        self._ragged = bool(most_drafts)
        self._at_least = np.zeros((most_drafts, _ROOM_STEPS), dtype=np.int64)
        self._sums = np.zeros(_ROOM_STEPS, dtype=np.int64)
        self._blocks = np.zeros(_ROOM_STEPS, dtype=np.int32)
        self._sum, self._block = self._sums.data, self._blocks.data

    def join(self, step: int, path: Path) -> None:
        """The sequence runs path's rounds from `step` on."""
        rounds = path.rounds
        if step - self._origin + rounds + 2 > len(self._sum):
            self._reserve(step, rounds + 2)
        at = step - self._origin
        sums, blocks = self._sums[at : at + rounds + 1], self._blocks[at : at + rounds]
        sums += path.sums(0)
        blocks += path.blocks(0)
        if self._ragged:
            wider = path.at_least(0)
            self._at_least[: len(wider), at : at + rounds] += wider

    def end(self, step: int, path: Path) -> None:
        """The path's last round was the one before `step`."""
        at = step - self._origin
        self._sum[at] -= path.last_sum
        if at + 1 >= len(self._sum):
            self._reserve(step, 2)

    def leave(self, step: int, path: Path, done: int) -> None:
        """The sequence stops before `step`, after `done` rounds of `path`."""
        at = step - self._origin
        rest = path.rounds - done
        self._sums[at : at + rest + 1] -= path.sums(done)
        self._blocks[at : at + rest] -= path.blocks(done)
        if self._ragged:
            wider = path.at_least(done)
            self._at_least[: len(wider), at : at + rest] -= wider

    def cached(self, step: int) -> int:
        """Cached tokens of all running sequences before `step`."""
        at = step - self._origin
        return self._sum[at + 1] - self._sum[at]

    def span(self, step: int, steps: int) -> tuple[int, int, int]:
        """`cached` of the first and the last of `steps` steps from `step` on, and summed over all of them."""
        sums, at = self._sum, step - self._origin
        first = sums[at]
        if steps == 1:
            cached = sums[at + 1] - first
            return cached, cached, cached
        end = sums[at + steps]
        return sums[at + 1] - first, end - sums[at + steps - 1], end - first

    def total(self, step: int, steps: int) -> int:
        """`cached` summed over `steps` steps from `step` on."""
        at = step - self._origin
        return self._sum[at + steps] - self._sum[at]

    def contexts(self, step: int, steps: int) -> NDArray[np.int64]:
        """`cached` of each of `steps` steps from `step` on."""
        at = step - self._origin
        return self._sums[at + 1 : at + steps + 1] - self._sums[at : at + steps]

    def blocks(self, step: int) -> int:
        """KV blocks the running sequences need in `step`."""
        return self._block[step - self._origin]

    def at_least(self, step: int) -> tuple[int, ...]:
        """Sequences that verify 1, 2, ... drafts or more in `step`."""
        return tuple(self._at_least[:, step - self._origin].tolist())

    def steps_within(self, step: int, steps: int, blocks: int) -> int:
        """How many of `steps` steps from `step` on need no more than `blocks` KV blocks."""
        at = step - self._origin
        return int(np.searchsorted(self._blocks[at : at + steps], blocks, side="right"))

    def steps_below(self, step: int, steps: int, tokens: int) -> int:
        """How many of `steps` steps from `step` on start with fewer than `tokens` cached tokens."""
        low, high = 0, steps
        while low < high:
            middle = (low + high) // 2
            if self.cached(step + middle) < tokens:
                low = middle + 1
            else:
                high = middle
        return low

    def _reserve(self, step: int, steps: int) -> None:
        """Make room up to step + steps, dropping what lies before `step`."""
        past = step - self._origin
        room = max(_ROOM_STEPS, 2 * (len(self._sums) - past), 2 * steps)
        for name in ("_sums", "_blocks", "_at_least"):
            old = getattr(self, name)
            row = np.zeros((*old.shape[:-1], room), dtype=old.dtype)
            row[..., : old.shape[-1] - past] = old[..., past:]
            setattr(self, name, row)
        self._sum, self._block = self._sums.data, self._blocks.data
        self._origin = step
