"""Draft lengths chosen by the batch: a table, a threshold, the length that emits the most tokens per second."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

from sim.speculation.length import Choice, Chooser, Length, Outlook, refuse_drafts

_CELLS_PER_OCTAVE = 4


@dataclass(kw_only=True, slots=True)
class TableByBatch(Length):
    """A length per range of running sequences (vLLM `num_speculative_tokens_per_batch_size`).

    Attributes:
        ranges: rows [first, last, drafts], without gaps from 1 on; the last row holds for every larger batch.
    """

    ranges: list[list[int]]

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("speculation.length.ranges must hold at least one row [first, last, drafts], got none")
        expected = 1
        for i, row in enumerate(self.ranges):
            name = f"speculation.length.ranges[{i}]"
            if len(row) != 3:
                raise ValueError(f"{name} must be [first, last, drafts], got {list(row)}")
            first, last, drafts = row
            if first != expected:
                kind = "overlaps the row before" if first < expected else "leaves a gap"
                raise ValueError(f"{name} must start at batch {expected}, got {first}: it {kind}")
            if last < first:
                raise ValueError(f"{name} must end at or after its start {first}, got {last}")
            refuse_drafts(f"ranges[{i}][2]", drafts, least=0)
            expected = last + 1
        if self.most_drafts == 0:
            raise ValueError("speculation.length.ranges never drafts; take speculation=off")

    @property
    def most_drafts(self) -> int:
        """The longest of the table."""
        return max(row[2] for row in self.ranges)

    def chooser(self, outlook: Outlook) -> Chooser:
        """Looks the batch up."""
        return _Table([row[0] for row in self.ranges], [row[2] for row in self.ranges])


@dataclass(kw_only=True, slots=True)
class DisableAbove(Length):
    """`drafts` tokens up to `batch` running sequences, none above (vLLM V0 `speculative_disable_by_batch_size`)."""

    drafts: int
    batch: int

    def __post_init__(self) -> None:
        refuse_drafts("drafts", self.drafts)
        if self.batch < 1:
            raise ValueError(f"speculation.length.batch must be >= 1, got {self.batch}; for none take speculation=off")

    @property
    def most_drafts(self) -> int:
        """`drafts`."""
        return self.drafts

    def chooser(self, outlook: Outlook) -> Chooser:
        """A table of two rows."""
        return _Table([1, self.batch + 1], [self.drafts, 0])


@dataclass(kw_only=True, slots=True)
class MostTokens(Length):
    """The length that maximises expected tokens per second of the coming step ("goodput" of SmartSpec, 2406.14066).

    The context is taken at the lower end of its cell, a quarter of an octave wide, so that a choice stands for a block.

    Attributes:
        most: longest draft considered.
        least: shortest; 0 allows for a step without drafts.
        margin: by how much a longer draft must beat a shorter one (SmartSpec favours none by 1.1).
    """

    most: int
    least: int = 0
    margin: float = 1.0

    def __post_init__(self) -> None:
        refuse_drafts("most", self.most)
        refuse_drafts("least", self.least, least=0)
        if self.least >= self.most:
            raise ValueError(
                f"speculation.length.least must be < most = {self.most}, got {self.least}; for one length take fixed"
            )
        if not 1.0 <= self.margin <= 2.0:
            raise ValueError(f"speculation.length.margin must lie in [1, 2], got {self.margin}")

    @property
    def most_drafts(self) -> int:
        """`most`."""
        return self.most

    def chooser(self, outlook: Outlook) -> Chooser:
        """Compares the lengths at every batch and context."""
        return _Best(self, outlook)


class _Table(Chooser):
    def __init__(self, firsts: list[int], drafts: list[int]) -> None:
        self._firsts, self._drafts = firsts, drafts

    def choose(self, sequences: int, cached: int) -> Choice:
        return Choice(self._drafts[bisect_right(self._firsts, sequences) - 1])


class _Best(Chooser):
    def __init__(self, policy: MostTokens, outlook: Outlook) -> None:
        self._policy, self._outlook = policy, outlook
        self._best = lru_cache(maxsize=None)(self._compare)

    def choose(self, sequences: int, cached: int) -> Choice:
        low, high = context_cell(cached)
        return Choice(self._best(sequences, low), until_cached=high)

    def _compare(self, sequences: int, cached: int) -> int:
        policy, outlook = self._policy, self._outlook
        best, best_rate = policy.least, 0.0
        for drafts in range(policy.least, policy.most + 1):
            rate = outlook.emitted(drafts) / outlook.step_s(sequences, cached, drafts)
            if rate > best_rate * (policy.margin if best_rate else 1.0):
                best, best_rate = drafts, rate
        return best


def context_cell(cached: int) -> tuple[int, int]:
    """The cell of total context that `cached` lies in: four to an octave."""
    if cached < _CELLS_PER_OCTAVE:
        return 0, _CELLS_PER_OCTAVE
    shift = max(0, cached.bit_length() - 3)
    low = (cached >> shift) << shift
    return low, low + (1 << shift)
