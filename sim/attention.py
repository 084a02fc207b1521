"""The attention of one layer: its weight matrices, what it keeps per token or per sequence, and its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

ATTENTION_KINDS = ("full", "sliding", "chunked", "mla", "linear", "sparse")

_HEADED = ("full", "sliding", "chunked")
_ATTENTION_FIELDS: dict[str, tuple[str, ...]] = {
    "window_tokens": ("sliding", "chunked"),
    "q_rank": ("mla", "sparse"),
    "kv_rank": ("mla", "sparse"),
    "rope_dim": ("mla", "sparse"),
    "conv_kernel": ("linear",),
    "top_k_tokens": ("sparse",),
    "index_heads": ("sparse",),
    "index_dim": ("sparse",),
    "bias": (*_HEADED, "sparse"),
    "output_gate": _HEADED,
}
"""Attention fields that have an effect for some kinds only."""

_OPTIONAL = ("q_rank", "bias", "output_gate")


def check(condition: bool, message: str) -> None:
    """ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Linear:
    """One weight matrix, y[t, n] = x[t, k] W: `n` output and `k` input features.

    `split` says how tensor parallelism cuts it: `column` (n over the ranks), `row` (k over the ranks, an all-reduce
    after it) or `none` (replicated on every rank).
    """

    name: str
    n: int
    k: int
    split: str
    bias: bool = False

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.n * self.k + (self.n if self.bias else 0)


@dataclass(kw_only=True, slots=True)
class Attention:
    """The attention of one layer.

    Attributes:
        kind: full; sliding (the last `window_tokens`); chunked (inside aligned chunks of `window_tokens`); mla (latent
            KV); linear (gated DeltaNet: a state of fixed size instead of a cache); sparse (full cache, `top_k_tokens`
            of it read; latent as mla where `kv_rank` is set).
        heads: query heads (linear: value heads).
        kv_heads: key-value heads (mla: 1 latent; linear: key heads).
        head_dim: width of a query and key head (linear: of a key head; mla: nope + rope).
        value_dim: width of a value head; 0 means head_dim.
        window_tokens: window or chunk, sliding and chunked only.
        q_rank, kv_rank, rope_dim: latent widths of mla (q_rank 0: no query compression).
        conv_kernel: width of the causal convolution of linear attention.
        top_k_tokens, index_heads, index_dim: the indexer of sparse attention.
        bias: biases on the q, k and v projections.
        out_bias: bias on the output projection.
        output_gate: the query projection is doubled to gate the output (Qwen3-Next).

    Raises:
        ValueError: a bound is broken, or a field is set that has no effect for the kind.
    """

    kind: str = "full"
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int = 0
    window_tokens: int = 0
    q_rank: int = 0
    kv_rank: int = 0
    rope_dim: int = 0
    conv_kernel: int = 0
    top_k_tokens: int = 0
    index_heads: int = 0
    index_dim: int = 0
    bias: bool = False
    out_bias: bool = False
    output_gate: bool = False

    def __post_init__(self) -> None:
        kinds = ", ".join(ATTENTION_KINDS)
        check(self.kind in ATTENTION_KINDS, f"attention.kind must be one of {kinds}, got {self.kind!r}")
        for name in ("heads", "kv_heads", "head_dim"):
            check(getattr(self, name) >= 1, f"attention.{name} must be >= 1, got {getattr(self, name)}")
        check(self.value_dim >= 0, f"attention.value_dim must be >= 0 (0: head_dim), got {self.value_dim}")
        for name, kinds_with in _ATTENTION_FIELDS.items():
            self._check_field(name, kinds_with)
        check(
            self.heads % self.kv_heads == 0,
            f"attention.heads must be a multiple of attention.kv_heads={self.kv_heads}, got {self.heads}",
        )
        if self.latent:
            self._check_latent()

    def _check_field(self, name: str, kinds_with: tuple[str, ...]) -> None:
        value = getattr(self, name)
        check(value >= 0, f"attention.{name} must be >= 0, got {value}")
        if self.kind not in kinds_with:
            check(
                not value,
                f"attention.{name} has no effect for kind {self.kind!r}, got {value}; remove it or choose kind "
                f"{' or '.join(kinds_with)}",
            )
        elif name not in _OPTIONAL and not (self.kind == "sparse" and name in ("kv_rank", "rope_dim")):
            check(value >= 1, f"attention.{name} must be >= 1 for kind {self.kind!r}, got {value}")

    def _check_latent(self) -> None:
        check(self.kv_heads == 1, f"attention.kv_heads must be 1 (the latent) with kv_rank set, got {self.kv_heads}")
        check(
            1 <= self.rope_dim < self.head_dim,
            f"attention.rope_dim must lie in [1, head_dim={self.head_dim}) where kv_rank is set, got {self.rope_dim}",
        )
        check(not self.bias, "attention.bias has no effect where kv_rank is set; remove it")

    @property
    def latent(self) -> bool:
        """The cache holds one latent per token instead of keys and values."""
        return self.kind == "mla" or self.kv_rank > 0

    @property
    def value_width(self) -> int:
        """Width of a value head."""
        return self.value_dim or self.head_dim

    @property
    def kv_elements(self) -> int:
        """Cache elements per token and layer: keys and values, or the latent once, plus the indexer's key."""
        if self.kind == "linear":
            return 0
        cached = self.kv_rank + self.rope_dim if self.latent else self.kv_heads * (self.head_dim + self.value_width)
        return cached + self.index_dim

    @property
    def state_elements(self) -> int:
        """Elements per sequence and layer of linear attention: the recurrent state and the convolution's tail."""
        if self.kind != "linear":
            return 0
        return self.heads * self.head_dim * self.value_width + (self.conv_kernel - 1) * self.conv_channels

    @property
    def conv_channels(self) -> int:
        """Channels of the causal convolution over q, k and v of linear attention."""
        return 2 * self.kv_heads * self.head_dim + self.heads * self.value_width

    @property
    def other_params(self) -> int:
        """Parameters outside the matrices: latent norms; convolution, decay, step bias and gate norm of DeltaNet."""
        if self.kind == "linear":
            return self.conv_kernel * self.conv_channels + 2 * self.heads + self.value_width
        return self.q_rank + self.kv_rank

    def linears(self, hidden: int) -> list[Linear]:
        """The weight matrices for a model of width `hidden`, in order of use."""
        out = Linear("o", hidden, self.heads * self.value_width, "row", self.out_bias)
        if self.kind == "linear":
            gates = self.heads * self.value_width + 2 * self.heads  # z per value channel, b and a per head
            return [Linear("in", self.conv_channels + gates, hidden, "column"), out]
        return [*(self._latent_linears(hidden) if self.latent else [self._qkv(hidden)]), *self._indexer(hidden), out]

    def _qkv(self, hidden: int) -> Linear:
        queries = self.heads * self.head_dim * (2 if self.output_gate else 1)
        keys_values = self.kv_heads * (self.head_dim + self.value_width)
        return Linear("qkv", queries + keys_values, hidden, "column", self.bias)

    def _latent_linears(self, hidden: int) -> list[Linear]:
        queries = self.heads * self.head_dim
        nope = self.head_dim - self.rope_dim
        if self.q_rank:
            query = [Linear("q_a", self.q_rank, hidden, "none"), Linear("q_b", queries, self.q_rank, "column")]
        else:
            query = [Linear("q", queries, hidden, "column")]
        # Absorbed into the queries and outputs at decode, kv_b costs the same FLOPs and bytes.
        return [
            *query,
            Linear("kv_a", self.kv_rank + self.rope_dim, hidden, "none"),
            Linear("kv_b", self.heads * (nope + self.value_width), self.kv_rank, "column"),
        ]

    def _indexer(self, hidden: int) -> list[Linear]:
        if self.kind != "sparse":
            return []
        return [
            Linear("index_q", self.index_heads * self.index_dim, self.q_rank or hidden, "none"),
            Linear("index_k", self.index_dim, hidden, "none"),
            Linear("index_weights", self.index_heads, hidden, "none"),
        ]

    def read_tokens(self, context_tokens: int) -> int:
        """Cached tokens the last of `context_tokens` tokens attends to, itself included."""
        if self.kind == "chunked":
            return (context_tokens - 1) % self.window_tokens + 1
        if self.kind == "linear":
            return 0
        limit = self.window_tokens or self.top_k_tokens or context_tokens
        return min(context_tokens, limit)

    def core_flops(self, context_tokens: int) -> int:
        """FLOPs of one query token on its context, the matrices apart; a latent counts in its absorbed form."""
        if self.kind == "linear":
            # Per state element: decay 1, prediction 2, rank-one update 2, read-out 2 (arXiv 2412.06464, equation 10).
            return 7 * self.heads * self.head_dim * self.value_width
        widths = 2 * self.kv_rank + self.rope_dim if self.latent else self.head_dim + self.value_width
        indexing = 2 * self.index_heads * self.index_dim * context_tokens
        return 2 * self.heads * widths * self.read_tokens(context_tokens) + indexing
