"""Cascade: draft lengths by measured utility, in phases that test and phases that use what the test showed."""

from __future__ import annotations

from dataclasses import dataclass

from sim.speculation.length import Choice, Chooser, Length, Outlook, refuse_drafts


@dataclass(kw_only=True, slots=True)
class Cascade(Length):
    """Tests lengths in turn, then keeps the best for a while (Cascade, arXiv 2506.20675: utility = benefit / cost).

    A test phase measures no drafts first, then each of `candidates`, `test_steps` steps each; the length of the most
    tokens per second is kept for `set_steps` steps. Where no length beats none, drafting stays off for `set_steps`
    doubled with every such test in a row, up to eight times.

    Attributes:
        candidates: lengths to test, growing.
        test_steps, set_steps: steps of each test and of the phase after it.
    """

    candidates: list[int]
    test_steps: int = 4
    set_steps: int = 64

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("speculation.length.candidates must hold at least one length, got none")
        for i, drafts in enumerate(self.candidates):
            refuse_drafts(f"candidates[{i}]", drafts)
            if i and drafts <= self.candidates[i - 1]:
                raise ValueError(f"speculation.length.candidates must grow, got {list(self.candidates)}")
        for name in ("test_steps", "set_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"speculation.length.{name} must be >= 1, got {getattr(self, name)}")

    @property
    def most_drafts(self) -> int:
        """The longest candidate."""
        return self.candidates[-1]

    def chooser(self, outlook: Outlook) -> Chooser:
        """A rank's phases."""
        return _Phases(self)


class _Phases(Chooser):
    """Counts steps and tokens per tick of the length under test; a phase ends at an exact step."""

    def __init__(self, policy: Cascade) -> None:
        self._policy = policy
        self._lengths = [0, *policy.candidates]
        self._testing = 0
        self._left = policy.test_steps
        self._tokens = self._ticks = 0
        self._rates: list[float] = []
        self._kept: int | None = None
        self._barren = 0

    def choose(self, sequences: int, cached: int) -> Choice:
        drafts = self._kept if self._kept is not None else self._lengths[self._testing]
        return Choice(drafts, steps=self._left)

    def observe(self, steps: int, tokens: int, ticks: int) -> None:
        self._left -= steps
        self._tokens += tokens
        self._ticks += ticks
        if self._left > 0:
            return
        if self._kept is not None:
            self._test_again()
            return
        self._rates.append(self._tokens / max(1, self._ticks))
        self._tokens = self._ticks = 0
        self._testing += 1
        self._left = self._policy.test_steps
        if self._testing == len(self._lengths):
            self._keep_best()

    def _test_again(self) -> None:
        self._kept, self._testing, self._rates = None, 0, []
        self._tokens = self._ticks = 0
        self._left = self._policy.test_steps

    def _keep_best(self) -> None:
        best = max(range(len(self._rates)), key=lambda i: self._rates[i])
        self._kept = self._lengths[best]
        self._barren = self._barren + 1 if best == 0 else 0
        self._left = self._policy.set_steps * min(8, 1 << max(0, self._barren - 1))
