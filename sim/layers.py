"""The FFN of one layer, dense or a mixture of experts, and the run of identical layers it stands in."""

from __future__ import annotations

from dataclasses import dataclass

from sim.attention import Attention, Linear, check

FFN_KINDS = ("dense", "moe")

_DENSE_FIELDS = ("width",)
_MOE_FIELDS = ("experts", "experts_per_token", "expert_width", "shared_width")


@dataclass(kw_only=True, slots=True)
class Ffn:
    """The feed-forward part of one layer.

    Attributes:
        kind: dense or moe.
        width: inner width of a dense FFN (moe: 0).
        gated: three matrices (gate, up, down) instead of two.
        experts, experts_per_token: E and K of the paper (dense: 0).
        expert_width: inner width of one routed expert.
        shared_width: inner width of all shared experts together, always loaded (0: none).
        bias: biases on the matrices, the router's included.

    Raises:
        ValueError: a bound is broken, or a field is set that has no effect for the kind.
    """

    kind: str = "dense"
    width: int = 0
    gated: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_width: int = 0
    bias: bool = False

    def __post_init__(self) -> None:
        check(self.kind in FFN_KINDS, f"ffn.kind must be one of {', '.join(FFN_KINDS)}, got {self.kind!r}")
        check(self.shared_width >= 0, f"ffn.shared_width must be >= 0, got {self.shared_width}")
        used, unused, other = (
            (_DENSE_FIELDS, _MOE_FIELDS, "moe") if self.kind == "dense" else (_MOE_FIELDS[:3], _DENSE_FIELDS, "dense")
        )
        for name in used:
            check(
                getattr(self, name) >= 1, f"ffn.{name} must be >= 1 for kind {self.kind!r}, got {getattr(self, name)}"
            )
        for name in unused:
            value = getattr(self, name)
            check(
                value == 0,
                f"ffn.{name} has no effect for kind {self.kind!r}, got {value}; remove it or choose kind {other}",
            )
        check(
            self.experts_per_token <= self.experts,
            f"ffn.experts_per_token must be <= ffn.experts={self.experts}, got {self.experts_per_token}",
        )

    @property
    def matrices(self) -> int:
        """Weight matrices of a dense FFN or of one expert."""
        return 3 if self.gated else 2

    def linears(self, hidden: int) -> list[Linear]:
        """The matrices every token passes, for a model of width `hidden`: all but the routed experts."""
        if self.kind == "dense":
            return self._mlp("", hidden, self.width)
        shared = self._mlp("shared_", hidden, self.shared_width) if self.shared_width else []
        return [Linear("router", self.experts, hidden, "none", self.bias), *shared]

    def expert_linears(self, hidden: int) -> list[Linear]:
        """The matrices of ONE routed expert; empty for a dense FFN."""
        return self._mlp("expert_", hidden, self.expert_width) if self.kind == "moe" else []

    def expert_params(self, hidden: int) -> int:
        """Parameters of ONE routed expert; 0 for a dense FFN."""
        return sum(linear.params for linear in self.expert_linears(hidden))

    def _mlp(self, prefix: str, hidden: int, width: int) -> list[Linear]:
        name, factor = ("gate_up", 2) if self.gated else ("up", 1)
        return [
            Linear(prefix + name, factor * width, hidden, "column", self.bias),
            Linear(prefix + "down", hidden, width, "row", self.bias),
        ]


@dataclass(kw_only=True, slots=True)
class Layers:
    """`count` identical layers; a model lists each kind once, in order of first appearance (order changes no cost)."""

    count: int
    attention: Attention
    ffn: Ffn

    def __post_init__(self) -> None:
        check(self.count >= 1, f"layers.count must be >= 1, got {self.count}")
