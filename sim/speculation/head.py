"""A draft head: the few layers that EAGLE, MTP, Medusa and their kin hang on the target, as a Model."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.attention import Attention, Linear, check
from sim.layers import Ffn
from sim.model import Model


@dataclass(kw_only=True, slots=True)
class DraftHead(Model):
    """Layers that continue the target's hidden states; what it shares with the target it does not weigh.

    Attributes:
        before_layers: matrices of every pass in front of the layers.
        first_pass: matrices of the first pass only, which fuse hidden states of the target.
        lm_heads: LM heads side by side, one per draft (Medusa).
        tables: vocabulary tables of its own; the target's are shared.
        copies: modules of this shape that take turns, each with its own weights and KV (MTP).
    """

    before_layers: list[Linear] = field(default_factory=list)
    first_pass: list[Linear] = field(default_factory=list)
    lm_heads: int = 1
    tables: int = 0
    copies: int = 1

    def outer_linears(self) -> list[Linear]:
        """The matrices in front of the layers, then the LM head or heads."""
        return [*self.before_layers, Linear("lm_head", self.lm_heads * self.vocab, self.hidden, "column")]

    def first_linears(self) -> list[Linear]:
        """The fusion of the target's hidden states."""
        return self.first_pass

    @property
    def own_tables(self) -> int:
        """`tables`."""
        return self.tables

    @property
    def layerless(self) -> bool:
        """Medusa's heads are matrices alone."""
        return True

    @property
    def modules(self) -> int:
        """`copies`."""
        return self.copies


def head_attention(target: Model, heads: int = 0, kv_heads: int = 0) -> Attention:
    """Full attention like the target's where that has key-value heads, else 128 wide heads over the model's width."""
    like = target.layers[0].attention
    plain = like.kind in {"full", "sliding", "chunked"}
    head_dim = like.head_dim if plain else 128
    heads = heads or (like.heads if plain else target.hidden // head_dim)
    return Attention(heads=heads, kv_heads=kv_heads or (like.kv_heads if plain else heads), head_dim=head_dim)


def head_ffn(target: Model, width: int = 0) -> Ffn:
    """A dense FFN: `width`, or the target's dense width, or three times the model's width (heads of Qwen3-30B-A3B)."""
    dense = [run.ffn.width for run in target.layers if run.ffn.kind == "dense"]
    return Ffn(kind="dense", width=width or (dense[0] if dense else 3 * target.hidden))


def check_hidden(target: Model, hidden: int) -> None:
    """Refuse a head of another width than the target's; 0 stands for the target's own."""
    check(
        hidden in {0, target.hidden},
        f"speculation.drafter.hidden must be {target.hidden}, the width of {target.name} whose hidden states the head "
        f"continues, got {hidden}; choose a head trained for this target",
    )
