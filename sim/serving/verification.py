"""The rounds of a rank's batch: the draft length in force, how wide they are, how long they last."""

from __future__ import annotations

from sim.cost.shape import Moments
from sim.serving.batch import Batch
from sim.serving.block import Block, Pace, RaggedPace, SteadyPace
from sim.serving.paths import Path, Paths
from sim.serving.sequence import Sequence
from sim.serving.setup import RankSetup
from sim.speculation.length import FOREVER, Choice


class Verification:
    """Draft length and pace of one rank.

    Attributes:
        drafts: draft tokens per sequence and round (the most, where sequences differ).
        width: query tokens per sequence and round that a scheduler counts.
        changes: whether anything but a request itself ever changes it.
    """

    def __init__(self, setup: RankSetup, paths: Paths) -> None:
        self.drafts = setup.drafts
        self.width = paths.rule.width(setup.drafts)
        self._prices = setup.prices
        self._paces: dict[tuple[int, int], SteadyPace] = {}
        self._paths = paths
        self._ragged = paths.rule.ragged
        self._chooser = setup.chooser() if setup.chooser is not None else None
        self.changes = self._chooser is not None
        self._choice = Choice(setup.drafts)

    def choose(self, batch: Batch) -> bool:
        """Ask for the coming step's draft length; whether it is another one than before."""
        if self._chooser is None or not batch.sequences:
            return False
        self._choice = self._chooser.choose(len(batch), batch.cached)
        changed = self._choice.drafts != self.drafts
        if changed:
            self.drafts = self._choice.drafts
            self.width = self._paths.rule.width(self.drafts)
        return changed

    def observe(self, block: Block, tokens: int) -> None:
        """A block is over and has emitted `tokens`."""
        if self._chooser is not None:
            self._chooser.observe(block.steps, tokens, block.end - block.start)

    def steps(self, batch: Batch, steps: int) -> int:
        """For how many of the coming `steps` steps the length stands; at least 1."""
        steps = min(steps, self._choice.steps)
        if self._choice.until_cached < FOREVER:
            steps = max(1, batch.ledger.steps_below(batch.step, steps, self._choice.until_cached))
        return steps

    def verified(self, batch: Batch, block: Block) -> int:
        """Query tokens of the decoding sequences in all steps of a block that is about to be committed."""
        if not self._ragged:
            return block.steps * block.decoding * self.width
        return sum(block.decoding + sum(batch.ledger.at_least(batch.step + i)) for i in range(block.steps))

    def path(self, sequence: Sequence) -> Path:
        """What a sequence will run from here on."""
        if sequence.emitted == 1:
            return self._paths.first(sequence.request, self.drafts)
        return self._paths.rest(sequence.request, sequence.emitted, self.drafts)

    def pace(self, batch: Batch) -> Pace:
        """How long the coming rounds last, while nobody joins or leaves."""
        if self._ragged:
            return RaggedPace(self._prices, batch.ledger, len(batch))
        key = (len(batch.sequences), self.drafts)
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = SteadyPace(self._prices.decode(*key), batch.ledger)
        return pace

    def prefill_ticks(self, batch: Batch, decoding: int, moments: Moments) -> int:
        """Ticks of one step that prefills, while `decoding` sequences (all or none) decode."""
        cached = batch.cached if decoding else 0
        if self._ragged:
            at_least = batch.ledger.at_least(batch.step) if decoding else ()
            return self._prices.ragged_mixed(at_least, decoding, cached, moments)
        return self._prices.mixed(self.drafts, decoding, cached, moments)
