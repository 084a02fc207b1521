"""Drafters that propose all drafts in one pass: Medusa's heads, masked parallel heads, block drafts."""

from __future__ import annotations

from dataclasses import dataclass

from sim.attention import Linear, check
from sim.cost.drafting import Drafting
from sim.layers import Layers
from sim.model import Model
from sim.speculation.draft import PlacedDrafter
from sim.speculation.head import DraftHead, check_hidden, head_attention, head_ffn
from sim.speculation.length import MOST_DRAFTS


@dataclass(kw_only=True, slots=True)
class Medusa(PlacedDrafter):
    """One residual block and one LM head per draft, on the last hidden state (arXiv 2401.10774): no layers, no KV.

    Attributes:
        heads: heads of the checkpoint; all of them run, whatever the draft length.
    """

    heads: int = 5

    def __post_init__(self) -> None:
        PlacedDrafter.__post_init__(self)
        check(
            1 <= self.heads <= MOST_DRAFTS,
            f"speculation.drafter.heads must lie in [1, {MOST_DRAFTS}], got {self.heads}",
        )

    @property
    def most_drafts(self) -> int:
        """One per head."""
        return self.heads

    def draft_for(self, target: Model) -> Model:
        """The heads, side by side."""
        hidden = target.hidden
        return DraftHead(
            name=f"{target.name} Medusa heads",
            hidden=hidden,
            vocab=target.vocab,
            max_context_tokens=target.max_context_tokens,
            before_layers=[Linear("blocks", self.heads * hidden, hidden, "column")],
            lm_heads=self.heads,
            tables=self.heads,
        )

    def drafting(self, drafts: int) -> Drafting:
        """One pass over the last position of each sequence; none where no draft is asked for."""
        return Drafting(passes=min(drafts, 1), eager=self.eager)

    def lookahead_tokens(self, drafts: int) -> int:
        """None: the heads cache nothing."""
        return 0


@dataclass(kw_only=True, slots=True)
class ParallelDraft(PlacedDrafter):
    """A few layers that fill a block of masked positions at once, on fused hidden states of the target.

    P-EAGLE (arXiv 2602.01469) and DFlash (arXiv 2602.06036): one pass over the verified positions, the prompts and
    the masked positions, one per draft but the first (P-EAGLE), or over the block alone (DFlash), for which the
    verified positions leave keys and values only.

    Attributes:
        layers: decoder layers of the head (DFlash of Qwen3-8B: 5, P-EAGLE: 4).
        features: hidden states of the target that are fused (DFlash 5, P-EAGLE 3).
        block_tokens: longest block it was trained for, drafts plus one.
        hidden, ffn_width, heads, kv_heads: as in `Eagle`.
        vocab: rows of an LM head of its own; 0 where it uses the target's.
        block_only: verified positions have no queries (DFlash).
    """

    layers: int
    features: int
    block_tokens: int
    hidden: int = 0
    ffn_width: int = 0
    heads: int = 0
    kv_heads: int = 0
    vocab: int = 0
    block_only: bool = False

    def __post_init__(self) -> None:
        PlacedDrafter.__post_init__(self)
        for name, least in (("layers", 1), ("features", 1), ("block_tokens", 2)):
            value = getattr(self, name)
            check(value >= least, f"speculation.drafter.{name} must be >= {least}, got {value}")
        for name in ("hidden", "ffn_width", "heads", "kv_heads", "vocab"):
            value = getattr(self, name)
            check(value >= 0, f"speculation.drafter.{name} must be >= 0, got {value}")

    @property
    def most_drafts(self) -> int:
        """All of a block but the token it starts from."""
        return min(self.block_tokens - 1, MOST_DRAFTS)

    def draft_for(self, target: Model) -> Model:
        """The head.

        Raises:
            ValueError: `hidden` is not the target's width.
        """
        check_hidden(target, self.hidden)
        hidden, attention = target.hidden, head_attention(target, self.heads, self.kv_heads)
        return DraftHead(
            name=f"{target.name} parallel head",
            hidden=hidden,
            vocab=self.vocab or target.vocab,
            max_context_tokens=target.max_context_tokens,
            layers=[Layers(count=self.layers, attention=attention, ffn=head_ffn(target, self.ffn_width))],
            first_pass=[Linear("fc", hidden, self.features * hidden, "none")],
            tables=1 if self.vocab else 0,
            kv_bytes=target.kv_bytes,
        )

    def drafting(self, drafts: int) -> Drafting:
        """One pass; a row of logits per draft. A block is as wide as the verified positions."""
        extra = 0 if self.block_only else max(0, drafts - 1)
        return Drafting(catch_up=True, first_extra=extra, first_rows=max(1, drafts), eager=self.eager)
