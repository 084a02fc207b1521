"""The ledger of coming steps: what the running sequences will hold at every future step, as sums.

A sequence's future is known when it joins (`sim.serving.paths`), so a rank adds its path once and no later event costs
anything per sequence. Between two changes of the running set both rows only grow from step to step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.serving.paths import Path

_ROOM_STEPS = 4096


class Ledger:
    """Sums over the running sequences on the rank's own step axis, kept from the present step on."""

    def __init__(self) -> None:
        self._origin = 0
        self._context = np.zeros(_ROOM_STEPS, dtype=np.int64)
        self._blocks = np.zeros(_ROOM_STEPS, dtype=np.int64)

    def join(self, step: int, path: Path) -> None:
        """The sequence runs path's rounds from `step` on."""
        self._reserve(step, len(path))
        at = step - self._origin
        self._context[at : at + len(path)] += path.context
        self._blocks[at : at + len(path)] += path.blocks

    def leave(self, step: int, path: Path, done: int) -> None:
        """The sequence stops before `step`, after `done` rounds of `path`."""
        at = step - self._origin
        rest = len(path) - done
        self._context[at : at + rest] -= path.context[done:]
        self._blocks[at : at + rest] -= path.blocks[done:]

    def context(self, step: int, steps: int) -> NDArray[np.int64]:
        """Cached tokens of all running sequences before each of `steps` steps from `step` on (a view)."""
        self._reserve(step, steps)
        at = step - self._origin
        return self._context[at : at + steps]

    def blocks(self, step: int, steps: int) -> NDArray[np.int64]:
        """KV blocks the running sequences need in each of `steps` steps from `step` on (a view)."""
        self._reserve(step, steps)
        at = step - self._origin
        return self._blocks[at : at + steps]

    def _reserve(self, step: int, steps: int) -> None:
        """Make room up to step + steps, dropping what lies before `step`."""
        if step - self._origin + steps <= len(self._context):
            return
        past = step - self._origin
        room = max(_ROOM_STEPS, 2 * (len(self._context) - past), 2 * steps)
        for name in ("_context", "_blocks"):
            row = np.zeros(room, dtype=np.int64)
            kept = getattr(self, name)[past:]
            row[: len(kept)] = kept
            setattr(self, name, row)
        self._origin = step
