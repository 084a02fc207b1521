"""A transformer with random weights, built from a `Model`: one tensor-parallel rank of it, on a static KV cache.

Runs decode (width 1), verification (gamma + 1) and prefill (many) by one forward pass without host waits, so that a
CUDA graph can hold it. Collectives are not in it: one rank's share is what it times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import embedding, linear

from sim.layers import Layers
from sim.model import Model
from sim.profiling.attention import attend_with
from sim.profiling.experts import ExpertWeights, activate, apply_experts, choose_experts, random_experts
from sim.profiling.layers import add_rms_norm, fuse, fusing_kernel, rotary_angles, rotate, store
from sim.profiling.place import Place


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer on one rank; `experts` and `router` None for a dense FFN, `up` None without one."""

    run: Layers
    norms: tuple[torch.Tensor, torch.Tensor]
    qkv: torch.Tensor
    out: torch.Tensor
    up: torch.Tensor | None
    down: torch.Tensor | None
    router: torch.Tensor | None
    experts: ExpertWeights | None


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and values of every layer, [batch, slots, kv_heads, head_dim] each."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]


class Transformer:
    """One rank's share of a model.

    Args:
        model: what to build; only full and sliding attention.
        place: where.
        tensor_parallel: ranks that cut heads, FFN and vocabulary.
        layers: layers to build, spread over the model's.
        attention, experts: kernels by their names.

    Raises:
        ValueError: the model has something this runner cannot build, or the ranks do not divide the heads.
    """

    def __init__(
        self, model: Model, place: Place, tensor_parallel: int, layers: int, attention: str, experts: str
    ) -> None:
        if reason := unbuildable(model):
            raise ValueError(reason)
        for run in model.layers:
            if run.attention.heads % tensor_parallel:
                heads = f"the {run.attention.heads} heads of {model.name}"
                raise ValueError(f"tensor_parallel must divide {heads}, got {tensor_parallel}")
        self.model, self.place, self.ranks = model, place, tensor_parallel
        self._attend, self._expert_kernel = attend_with(attention), experts
        kernel = fusing_kernel(place)
        self._norm, self._rotate = fuse(add_rms_norm, kernel), fuse(rotate, kernel)
        self._activate, self._store = fuse(activate, kernel), fuse(store, kernel)
        self.vocabulary = -(-model.vocab // tensor_parallel)
        self.table = place.randn(model.vocab, model.hidden)
        self.head = place.randn(self.vocabulary, model.hidden, scale=model.hidden**-0.5)
        self.last_norm = torch.ones(model.hidden, device=place.device, dtype=place.dtype)
        every = [run for run in model.layers for _ in range(run.count)]
        self.layers = [self._layer(every[i * len(every) // layers]) for i in range(layers)]

    @property
    def waits(self) -> bool:
        """A pass waits for the device, so that no CUDA graph can hold it."""
        return self.model.is_moe and self._expert_kernel == "loop"

    def cache(self, batch: int, slots: int) -> Cache:
        """A cache full of random keys and values: a context of any length stands ready without prefill."""
        shapes = [(batch, slots, self._kv_heads(layer.run), layer.run.attention.head_dim) for layer in self.layers]
        return Cache([self.place.randn(*shape) for shape in shapes], [self.place.randn(*shape) for shape in shapes])

    def forward(
        self, tokens: torch.Tensor, cached: torch.Tensor, cache: Cache, chosen: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Logits [batch, width, vocabulary of the rank] of `tokens` [batch, width], whose keys join the cache.

        Args:
            tokens: the new tokens of each sequence.
            cached: tokens that each sequence has in the cache already, int32 [batch].
            cache: slots for all of them.
            chosen: receives the experts of the tokens, [tokens, per_token] per MoE layer.
        """
        batch, width = tokens.shape
        positions = cached[:, None] + torch.arange(width, device=tokens.device)
        lengths = cached + width
        rows = embedding(tokens.flatten(), self.table)
        angles = {dim: rotary_angles(positions, dim) for dim in {a.run.attention.head_dim for a in self.layers}}
        residual = torch.zeros_like(rows)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            rows, residual = self._norm(rows, residual, layer.norms[0])
            attention = layer.run.attention
            heads, kv_heads, dim = attention.heads // self.ranks, self._kv_heads(layer.run), attention.head_dim
            split = linear(rows, layer.qkv).view(batch, width, -1, dim).split([heads, kv_heads, kv_heads], dim=2)
            query, key = (self._rotate(part, *angles[dim]) for part in split[:2])
            self._store(keys, key, positions)
            self._store(values, split[2], positions)
            seen = self._attend(query, keys, values, lengths, attention.window_tokens)
            rows, residual = self._norm(linear(seen.reshape(batch * width, -1), layer.out), residual, layer.norms[1])
            rows = self._ffn(layer, rows, chosen)
        rows, _ = self._norm(rows, residual, self.last_norm)
        return linear(rows, self.head).view(batch, width, -1)

    def _ffn(self, layer: Layer, rows: torch.Tensor, chosen: list[torch.Tensor] | None) -> torch.Tensor:
        gated = layer.run.ffn.gated
        total = None
        if layer.up is not None and layer.down is not None:
            total = linear(self._activate(linear(rows, layer.up), gated=gated), layer.down)
        if layer.experts is None or layer.router is None:
            assert total is not None
            return total
        experts, shares = choose_experts(linear(rows, layer.router), layer.run.ffn.experts_per_token)
        if chosen is not None:
            chosen.append(experts)
        routed = apply_experts(rows, experts, shares, layer.experts, self._expert_kernel)
        return routed if total is None else routed + total

    def _kv_heads(self, run: Layers) -> int:
        return -(-run.attention.kv_heads // self.ranks)

    def _layer(self, run: Layers) -> Layer:
        """Random weights of one layer, cut over the ranks."""
        place, hidden, ffn, attention = self.place, self.model.hidden, run.ffn, run.attention
        heads, kv_heads = attention.heads // self.ranks, self._kv_heads(run)
        ones = torch.ones(hidden, device=place.device, dtype=place.dtype)
        width = (ffn.width or ffn.shared_width) // self.ranks
        moe = ffn.kind == "moe"
        inner = (2 if ffn.gated else 1) * width
        return Layer(
            run=run,
            norms=(ones, ones),
            qkv=place.randn((heads + 2 * kv_heads) * attention.head_dim, hidden, scale=hidden**-0.5),
            out=place.randn(hidden, heads * attention.head_dim, scale=(heads * attention.head_dim) ** -0.5),
            up=place.randn(inner, hidden, scale=hidden**-0.5) if width else None,
            down=place.randn(hidden, width, scale=width**-0.5) if width else None,
            router=place.randn(ffn.experts, hidden, scale=hidden**-0.5) if moe else None,
            experts=random_experts(place, ffn.experts, hidden, ffn.expert_width // self.ranks, gated=ffn.gated)
            if moe
            else None,
        )


def unbuildable(model: Model) -> str:
    """Why `Transformer` cannot build the model; empty where it can."""
    for run in model.layers:
        attention = run.attention
        plain = attention.kind in {"full", "sliding"} and attention.value_width == attention.head_dim
        if not plain or attention.output_gate:
            return (
                f"whole steps need full or sliding attention, values as wide as keys and no output gate, "
                f"{model.name} has {attention.kind} attention{' with an output gate' if attention.output_gate else ''}"
            )
    if model.embedding_dim:
        return f"whole steps need an embedding as wide as the model, that of {model.name} has {model.embedding_dim}"
    return ""


def layers_that_fit(model: Model, place: Place, tensor_parallel: int, share: float) -> int:
    """Layers whose weights, beside embedding and LM head, take at most `share` of the device's memory; at least 1."""
    total = 0.0
    for run in model.layers:
        matrices = (*run.attention.linears(model.hidden), *run.ffn.linears(model.hidden))
        experts = run.ffn.experts * run.ffn.expert_params(model.hidden)
        total += run.count * (sum(matrix.params for matrix in matrices) + experts) / tensor_parallel
    outer = model.vocab * model.hidden * (1 + 1 / tensor_parallel)
    room = share * place.memory_bytes() / place.element_bytes - outer
    if room >= total:
        return model.layer_count
    return max(1, int(room / total * model.layer_count))
