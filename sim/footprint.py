"""What a model weighs: parameters, weight bytes, FLOPs per token, and KV bytes by group."""

from __future__ import annotations

from dataclasses import dataclass

from sim.attention import check
from sim.layers import Layers
from sim.model import Model


@dataclass(frozen=True, slots=True)
class KvGroup:
    """The layers that cache alike; all bytes are for the whole group, before any tensor parallelism.

    Attributes:
        kind: attention kind.
        layers: how many.
        kv_heads: cached heads; a rank of a larger tensor-parallel group holds a copy of one (mla: 1).
        bytes_per_token: cache of one token, 0 for linear attention.
        window_tokens: tokens after which the cache stops growing, 0 for never.
        state_bytes: state of one sequence, whatever its length; 0 but for linear attention.
    """

    kind: str
    layers: int
    kv_heads: int
    bytes_per_token: float
    window_tokens: int
    state_bytes: float

    def sequence_bytes(self, context_tokens: int) -> float:
        """Cache and state of one sequence at its largest (a chunk fills to `window_tokens`, then starts again)."""
        cached = min(context_tokens, self.window_tokens) if self.window_tokens else context_tokens
        return self.state_bytes + self.bytes_per_token * cached


def kv_groups(model: Model) -> list[KvGroup]:
    """The KV groups of a model, in order of first appearance."""
    counts: dict[tuple[str, int, int, float, float], int] = {}
    for run in model.layers:
        attention = run.attention
        token_bytes = attention.kv_elements * model.kv_bytes
        state_bytes = attention.state_elements * model.state_bytes
        key = (attention.kind, attention.kv_heads, attention.window_tokens, token_bytes, state_bytes)
        counts[key] = counts.get(key, 0) + run.count
    return [
        KvGroup(kind, count, heads, count * token_bytes, window, count * state_bytes)
        for (kind, heads, window, token_bytes, state_bytes), count in counts.items()
    ]


def params(model: Model) -> int:
    """Parameters of the checkpoint: weights, biases, norms and vocabulary tables; prediction modules (MTP) left out.

    Norms count their scales only: the biases of a LayerNorm, per-head norms and sinks are below 1e-4 of any model here.
    """
    return _params(model, tables=2, experts=[run.ffn.experts for run in model.layers])


def active_params(model: Model, tables: int = 1) -> int:
    """Parameters one token meets: all but the routed experts it is not sent to.

    Publishers disagree on the vocabulary: `tables` counts none (0), the LM head (1, what a step computes) or the
    embedding as well (2, so that a dense model's active parameters are its total); tied tables count once.
    """
    check(tables in (0, 1, 2), f"tables must be 0, 1 or 2, got {tables}")
    return _params(model, tables, experts=[run.ffn.experts_per_token for run in model.layers])


def weight_bytes_total(model: Model) -> float:
    """Bytes the weights take as served, over all GPUs, nothing replicated; prediction modules left out."""
    experts = _expert_params(model)
    rest = params(model) - experts - model.own_tables * model.vocab * model.embedding_width
    return experts * model.expert_bytes + model.own_tables * table_bytes(model) + rest * model.weight_bytes


def table_bytes(model: Model) -> float:
    """Bytes of one vocabulary table: the embedding, or the LM head."""
    return model.vocab * model.embedding_width * model.embedding_bytes


def expert_bytes_total(model: Model) -> float:
    """Bytes the routed experts take of `weight_bytes_total`."""
    return _expert_params(model) * model.expert_bytes


def flops_per_token(model: Model, context_tokens: int) -> int:
    """FLOPs to compute the token at position `context_tokens` (1 is the first), its logits included.

    Two per weight of every matrix met (Kaplan et al. 2020, section 2.1, but with the LM head), plus attention on the
    context as `Attention.core_flops` counts it.

    Raises:
        ValueError: context_tokens is below 1.
    """
    check(context_tokens >= 1, f"context_tokens must be >= 1, got {context_tokens}")
    total = sum(2 * linear.n * linear.k for linear in model.outer_linears())
    for run in model.layers:
        linears = [*run.attention.linears(model.hidden), *run.ffn.linears(model.hidden)]
        weights = sum(linear.n * linear.k for linear in linears)
        weights += run.ffn.experts_per_token * sum(
            linear.n * linear.k for linear in run.ffn.expert_linears(model.hidden)
        )
        total += run.count * (2 * weights + run.attention.core_flops(context_tokens))
    return total


def _expert_params(model: Model) -> int:
    return sum(run.count * run.ffn.experts * run.ffn.expert_params(model.hidden) for run in model.layers)


def _params(model: Model, tables: int, experts: list[int]) -> int:
    """Parameters with `experts[i]` routed experts counted in run i."""
    pairs = zip(model.layers, experts, strict=True)
    layers = sum(
        run.count * (_shared_params(run, model.hidden) + n * run.ffn.expert_params(model.hidden)) for run, n in pairs
    )
    return layers + _outside_params(model, tables)


def _shared_params(run: Layers, hidden: int) -> int:
    """Parameters of one layer that every token meets, its two norms included."""
    linears = [*run.attention.linears(hidden), *run.ffn.linears(hidden)]
    return sum(linear.params for linear in linears) + run.attention.other_params + 2 * hidden


def _table_count(model: Model, tables: int) -> int:
    return model.own_tables if tables == 2 else min(tables, model.own_tables)


def _outside_params(model: Model, tables: int) -> int:
    """Final norm, projections of the embedding, `tables` vocabulary tables; with the embedding, learned positions."""
    projections = sum(linear.params for linear in [*model.first_linears(), *model.outer_linears()[:-1]])
    positions = model.learned_positions * model.hidden if tables == 2 else 0
    rows = _table_count(model, tables) * model.vocab * model.embedding_width
    return model.hidden + projections + positions + rows
