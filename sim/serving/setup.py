"""What the ranks of a replica share: everything about serving that is not a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sim.cost.lines import Lines
from sim.cost.shape import Moments
from sim.serving.kv import KvLayout
from sim.serving.prefix import BlockIds
from sim.serving.scheduler import Scheduler
from sim.speculation.length import Chooser


class Prices(Protocol):
    """What a rank asks a cost model: step time in ticks."""

    def decode(self, sequences: int, drafts: int) -> Lines:
        """Steps in which `sequences` decode (or verify `drafts` each) and nothing is prefilled."""

    def ragged(self, sequences: int, at_least: tuple[int, ...], context_tokens: int) -> int:
        """One step without prefill in which `at_least[j - 1]` sequences verify j drafts or more."""

    def mixed(self, drafts: int, sequences: int, context_tokens: int, moments: Moments) -> int:
        """One step with prefill."""

    def ragged_mixed(self, at_least: tuple[int, ...], sequences: int, context_tokens: int, moments: Moments) -> int:
        """`mixed` for sequences of different widths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankSetup:
    """One replica's serving.

    Attributes:
        prices: step times.
        scheduler: the batching policy.
        kv: the pool of each rank.
        drafts: draft tokens per round, where nothing changes them; the most otherwise.
        chooser: makes the decisions of a rank about its draft length; None where it never changes.
        max_block_steps: longest block of steps; the results do not depend on it.
        block_ids: ids of KV blocks by content; None without prefix caching.
        drop_last_hit: the last block found is computed again, as EAGLE-like drafters need.
        planned_ahead: steps that are planned before the results of the one under way are known (1 with asynchronous
            scheduling): what arrives or finishes meanwhile counts that much later.
    """

    prices: Prices
    scheduler: Scheduler
    kv: KvLayout
    drafts: int = 0
    chooser: Callable[[], Chooser] | None = None
    max_block_steps: int = 4096
    planned_ahead: int = 0
    block_ids: BlockIds | None = None
    drop_last_hit: bool = False
