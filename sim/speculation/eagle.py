"""EAGLE, EAGLE-2 and EAGLE-3: one decoder layer that continues the target's hidden states, as a chain or a tree."""

from __future__ import annotations

from dataclasses import dataclass

from sim.attention import Linear, check
from sim.cost.drafting import Drafting
from sim.layers import Layers
from sim.model import Model
from sim.speculation.draft import PlacedDrafter
from sim.speculation.head import DraftHead, check_hidden, head_attention, head_ffn
from sim.speculation.length import MOST_DRAFTS
from sim.speculation.tree import reachable_nodes


@dataclass(kw_only=True, slots=True)
class Eagle(PlacedDrafter):
    """A head of one layer: a first pass over the verified positions and the prompts, then drafts - 1 passes.

    Its layer is dense even on a MoE target. The embedding is the target's. `version` 1 joins embedding and hidden state
    by a matrix before the layer and uses the target's LM head; 3 fuses three hidden states once, widens the layer's
    query, key and value matrix to both inputs, and has an LM head over a vocabulary of its own. EAGLE-2 is version 1
    with a tree.

    With `top_k` > 1 the drafts are a tree: the draft length is its depth, every pass after the first computes `top_k`
    tokens, and the `nodes` most probable are verified (SGLang: speculative_num_draft_tokens - 1).

    Attributes:
        version: 1 or 3.
        hidden: width of the head; 0, or the target's.
        ffn_width: 0 for the target's dense width, or three times its width where it has no dense layer.
        heads, kv_heads: of the layer; 0 for the target's.
        vocab: rows of the LM head of version 3; 0 for the target's vocabulary.
        top_k: children per node of a tree; 1 for a chain.
        nodes: drafts verified in a tree; 0 for all that `top_k` reaches. No effect in a chain.
        host_s: host time of a round beyond the engine's own: choosing and laying out the nodes of a tree.

    Raises:
        ValueError: a field out of bounds, or one without effect.
    """

    version: int = 3
    hidden: int = 0
    ffn_width: int = 0
    heads: int = 0
    kv_heads: int = 0
    vocab: int = 0
    top_k: int = 1
    nodes: int = 0
    host_s: float = 0.0

    def __post_init__(self) -> None:
        PlacedDrafter.__post_init__(self)
        check(
            self.version in (1, 3),
            f"speculation.drafter.version must be 1 or 3, got {self.version}; 2 is 1 with a tree",
        )
        for name in ("hidden", "ffn_width", "heads", "kv_heads", "vocab", "nodes"):
            value = getattr(self, name)
            check(value >= 0, f"speculation.drafter.{name} must be >= 0, got {value}")
        check(1 <= self.top_k <= 64, f"speculation.drafter.top_k must lie in [1, 64], got {self.top_k}")
        check(0.0 <= self.host_s < 1.0, f"speculation.drafter.host_s must lie in [0, 1) seconds, got {self.host_s}")
        check(
            self.version == 3 or self.vocab == 0,
            f"speculation.drafter.vocab has no effect in version 1, whose LM head is the target's, got {self.vocab}",
        )
        check(
            self.top_k > 1 or self.nodes == 0,
            f"speculation.drafter.nodes has no effect in a chain (top_k = 1), got {self.nodes}; set speculation.length",
        )

    @property
    def most_drafts(self) -> int:
        """Any length."""
        return MOST_DRAFTS

    @property
    def reads_hidden_states(self) -> bool:
        """As its input."""
        return True

    def draft_for(self, target: Model) -> Model:
        """The head.

        Raises:
            ValueError: `hidden` is not the target's width.
        """
        check_hidden(target, self.hidden)
        hidden, attention = target.hidden, head_attention(target, self.heads, self.kv_heads)
        both = Linear("fc", hidden, 2 * hidden, "none")
        if self.version == 3:
            both = Linear("qkv_of_embedding", attention.linears(hidden)[0].n, hidden, "column")
        return DraftHead(
            name=f"{target.name} EAGLE{'-3' if self.version == 3 else ''} head",
            hidden=hidden,
            vocab=self.vocab or target.vocab,
            max_context_tokens=target.max_context_tokens,
            layers=[Layers(count=1, attention=attention, ffn=head_ffn(target, self.ffn_width))],
            before_layers=[both],
            first_pass=[Linear("fc", hidden, 3 * hidden, "none")] if self.version == 3 else [],
            tables=1 if self.version == 3 else 0,
            kv_bytes=target.kv_bytes,
        )

    def drafting(self, drafts: int) -> Drafting:
        """The first pass and those after it, `top_k` tokens wide."""
        return Drafting(
            catch_up=True, passes=max(0, drafts - 1), pass_width=self.top_k, pass_rows=self.top_k, eager=self.eager,
            host_s=self.host_s if drafts else 0.0,
        )  # fmt: skip

    def verify_tokens(self, drafts: int) -> int:
        """The last committed token and the drafts: one per depth of a chain, `nodes` of a tree."""
        if self.top_k == 1:
            return drafts + 1
        reached = reachable_nodes(self.top_k, drafts)
        return 1 + min(self.nodes or reached, reached)

    def lookahead_tokens(self, drafts: int) -> int:
        """A slot for everything that is drafted."""
        return drafts if self.top_k == 1 else reachable_nodes(self.top_k, drafts)
