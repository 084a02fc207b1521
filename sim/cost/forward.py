"""The price of one forward pass of one model over a step: every op family, on the slowest rank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sim.attention import Linear
from sim.cost.attention import RankAttention
from sim.cost.constants import Constants
from sim.cost.dense import gemm, linears_work
from sim.cost.elementwise import LAYER_KERNELS, embedding_work, layer_work
from sim.cost.forward_comm import ForwardCollectives
from sim.cost.moe import RankExperts
from sim.cost.ranks import check_experts, check_heads
from sim.cost.routing import Routing
from sim.cost.shape import Count, Seconds, StepShape
from sim.cost.table import KernelTable
from sim.cost.work import Gemm, Peaks
from sim.hardware import Gpu, Link
from sim.layers import Layers
from sim.model import Model

_EXPERT_KERNELS = 6
"""Top-k, sort and align, grouped GEMM, activation, grouped GEMM, reduction."""


@dataclass(frozen=True, kw_only=True)
class ForwardCost:
    """Prices a `StepShape` for one model on one tensor-parallel group; every method is vectorised over the shape.

    Attributes:
        model, gpu, link, constants: what runs where, and how well.
        tensor_parallel: GPUs that attention and dense matrices are cut over.
        data_parallel: such groups that share the routed experts (DP attention), each with requests of its own. The
            shape is that of one of them, and the others are taken to do the same; `LockstepTimes` prices unequal ones.
        expert_parallel: experts lie whole on all of these GPUs instead of being cut over them. With one group every
            GPU sees every token anyway, so the collectives are the same.
        routing: how tokens choose experts.
        dtype: data type of the GEMMs, whose peak and constants count; attention and LM head compute in bf16.
        table: measured rows that correct the constants where they lie near; None: constants alone.

    Raises:
        ValueError: the ranks do not divide the heads, expert parallelism without effect, or a dtype the GPU lacks.
    """

    model: Model
    gpu: Gpu
    link: Link
    constants: Constants
    routing: Routing
    tensor_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    dtype: str = "bf16"
    table: KernelTable | None = None

    def __post_init__(self) -> None:
        check_heads(self.model, self.tensor_parallel)
        check_experts(self.model, self.tensor_parallel, self.data_parallel, self.routing, whole=self.expert_parallel)
        self.gpu.flops_per_s(self.dtype)

    @property
    def collectives(self) -> ForwardCollectives:
        """Inside the group and between groups."""
        inside = self.constants.allreduce
        between = self.constants.exchange or inside
        return ForwardCollectives(self.model, inside, between, self.link, self.tensor_parallel, self.data_parallel)

    @property
    def expert_ranks(self) -> int:
        """GPUs that share the routed experts."""
        return self.tensor_parallel * self.data_parallel

    def families(self, shape: StepShape, padded_tokens: Count | None = None) -> dict[str, Seconds]:
        """Seconds per op family: `tokenwise` and `attention` together."""
        return {**self.tokenwise(shape, padded_tokens), **self.attention(shape)}

    def seconds(self, shape: StepShape, padded_tokens: Count | None = None) -> Seconds:
        """Seconds of the whole pass on the GPU, host and sampling apart."""
        return sum(self.families(shape, padded_tokens).values())

    def tokenwise(self, shape: StepShape, padded_tokens: Count | None = None) -> dict[str, Seconds]:
        """Seconds of the families that see tokens, not contexts.

        Args:
            shape: the step.
            padded_tokens: tokens after padding to a CUDA graph's size (None: not padded). All but attention and LM head
                compute the padding too; its rows pass the router like any other and load experts of their own (vLLM
                and SGLang by default: vllm-project/vllm#46428, sgl-project/sglang#25852).
        """
        tokens, groups = _computed_tokens(shape, padded_tokens), self.data_parallel
        families = self.own_tokenwise(tokens, shape.logit_rows)
        together = self.shared_tokenwise(groups * shape.sequences, shape.width, groups * tokens)
        families["experts"] = together["experts"]
        families["collective"] = families["collective"] + together["exchange"]
        return families

    def own_tokenwise(self, tokens: Count, logit_rows: Count) -> dict[str, Seconds]:
        """Of `tokenwise`, what a tensor-parallel group does alone: all but routed experts and their exchange."""
        embedding = embedding_work(self.model, tokens)
        return {
            "gemm": self._gemm_seconds(tokens),
            "collective": self.collectives.inside_s(tokens, logit_rows),
            "elementwise": self._elementwise_seconds(tokens),
            "lm_head": self._gemm_s(self._head(logit_rows), "bf16"),
            "embedding": self.constants.elementwise.seconds(embedding, self.peaks("bf16")),
        }

    def shared_tokenwise(self, sequences: Count, width: Count, tokens: Count) -> dict[str, Seconds]:
        """Of `tokenwise`, what all groups do together: routed experts, and the exchange of tokens.

        Args:
            sequences: decoding sequences of all groups.
            width: query tokens of each of them.
            tokens: computed tokens of all groups, those of the sequences and paddings included.
        """
        experts_s = self._experts_seconds(sequences, width, tokens)
        return {"experts": experts_s, "exchange": self.collectives.between_s(tokens)}

    def attention(self, shape: StepShape) -> dict[str, Seconds]:
        """Seconds of the families that see contexts."""
        return {
            "attention_prefill": self.prefill_attention_s(shape),
            "attention_decode": self.decode_attention_s(shape),
        }

    def prefill_attention_s(self, shape: StepShape) -> Seconds:
        """Seconds of attention over the prefill chunks."""
        peaks, total = self._attention_peaks, 0.0 * shape.prefill_tokens
        for layers, rank in self._attentions:
            layer_s = rank.prefill(shape, self.constants.attention_prefill, peaks)
            if self.table is not None:
                layer_s = self.table.prefill_s(rank, shape, layer_s, peaks)
            total = total + layers * layer_s
        return total

    def decode_attention_s(self, shape: StepShape) -> Seconds:
        """Seconds of attention of the decoding sequences."""
        peaks, total = self._attention_peaks, 0.0 * np.asarray(shape.sequences)
        for layers, rank in self._attentions:
            layer_s = self._decode_s(rank, shape, peaks)
            if self.table is not None:
                layer_s = self.table.decode_s(rank, shape, layer_s, peaks)
            total = total + layers * layer_s
        return total

    def _decode_s(self, rank: RankAttention, shape: StepShape, peaks: Peaks) -> Seconds:
        latent = self.constants.attention_latent
        if rank.attention.kind == "mla" and latent is not None:
            return rank.latent(shape, latent, peaks)
        return rank.decode(shape, self.constants.attention_decode, peaks)

    def distinct_experts(self, shape: StepShape, padded_tokens: Count | None = None) -> Seconds:
        """Mean distinct experts per MoE layer, over all ranks; 0 for a dense model."""
        sequences = self.data_parallel * shape.sequences
        tokens = self.data_parallel * _computed_tokens(shape, padded_tokens)
        runs = [run for run in self.model.layers if run.ffn.kind == "moe"]
        hit = (run.count * self._distinct(run, sequences, shape.width, tokens) for run in runs)
        total = sum(hit, 0.0 * np.asarray(tokens))
        return total / max(1, sum(run.count for run in runs))

    def experts_over_loads(self, shape: StepShape, width: Count) -> Seconds:
        """Factor on the routed experts' seconds, decoding `shape`, were those loaded that `width` tokens of each hit.

        At least 1 for `width` >= that of `shape`; 1 for a dense model.
        """
        sequences = np.maximum(self.data_parallel * np.asarray(shape.sequences), 1)
        peaks, efficiency = self.peaks(self.dtype), self.constants.experts_at(self.dtype)
        own, loaded = 0.0 * sequences, 0.0 * sequences
        for run in self.model.layers:
            if run.ffn.kind == "moe":
                one, more = (
                    self._experts(run).grouped(self._distinct(run, sequences, each, sequences * each), sequences * each)
                    for each in (shape.width, width)
                )
                own = own + run.count * efficiency.experts_s(one, peaks)
                loaded = loaded + run.count * efficiency.experts_s(replace(one, experts=more.experts), peaks)
        factor: Seconds = np.where(own > 0, loaded / np.where(own > 0, own, 1.0), 1.0)[()]
        return factor

    def bounds(self, shape: StepShape) -> Seconds:
        """The hard lower bound: all FLOPs at peak or all bytes at full bandwidth, whichever takes longer.

        Counts the matrices, the experts hit and attention that reads its cache once; small kernels could all be fused.
        """
        tokens, bytes_per_weight, tp = shape.tokens, self.model.weight_bytes, self.tensor_parallel
        matrices = linears_work(self.model.outer_linears()[:-1], tokens, bytes_per_weight, tp)
        attention = self._head(shape.logit_rows).work
        for run in self.model.layers:
            matrices += run.count * linears_work(self._linears(run), tokens, bytes_per_weight, tp)
            if run.ffn.kind == "moe":
                entering = self.data_parallel * tokens
                hit = self._distinct(run, self.data_parallel * shape.sequences, shape.width, entering)
                matrices += run.count * self._experts(run).work(hit, entering)
        for layers, rank in self._attentions:
            attention += layers * (rank.decode_work(shape) + rank.prefill_work(shape))
        compute_s = matrices.flops / self.gpu.flops_per_s(self.dtype) + attention.flops / self.gpu.flops_per_s("bf16")
        memory_s = (matrices.bytes + attention.bytes) / self.gpu.memory_bandwidth_bytes_per_s
        bound_s: Seconds = np.maximum(compute_s, memory_s)
        return bound_s

    def fusion_s(self, tokens: Count) -> Seconds:
        """Seconds of the matrices that only a draft head's first pass computes; 0 for other models."""
        return self._linears_seconds(self.model.first_linears(), tokens) + 0.0 * np.asarray(tokens)

    @property
    def launches(self) -> int:
        """Kernels of one pass: GEMMs, attention, small kernels, six per routed-expert layer, collectives."""
        layers = sum(
            run.count
            * (len(self._linears(run)) + 1 + LAYER_KERNELS + (_EXPERT_KERNELS if run.ffn.kind == "moe" else 0))
            for run in self.model.layers
        )
        return layers + len(self.model.outer_linears()) + 2 + self.collectives.launches  # embedding and final norm

    def peaks(self, dtype: str) -> Peaks:
        """Peak rates of the GPU at a data type."""
        gpu = self.gpu
        return Peaks(gpu.flops_per_s(dtype), gpu.memory_bandwidth_bytes_per_s, gpu.sm_count)

    def _linears(self, run: Layers) -> list[Linear]:
        return [*run.attention.linears(self.model.hidden), *run.ffn.linears(self.model.hidden)]

    @cached_property
    def _attention_peaks(self) -> Peaks:
        return self.peaks("bf16")

    @cached_property
    def _attentions(self) -> list[tuple[int, RankAttention]]:
        """How many layers of each kind, and the attention of one on a rank."""
        cut = (self.tensor_parallel, self.model.kv_bytes, self.model.state_bytes)
        return [(run.count, RankAttention(run.attention, *cut)) for run in self.model.layers]

    def _experts(self, run: Layers) -> RankExperts:
        tp, ep = (1, self.expert_ranks) if self.expert_parallel else (self.expert_ranks, 1)
        return RankExperts(run.ffn, self.model.hidden, self.model.expert_bytes, tp, ep, routing=self.routing)

    def _distinct(self, run: Layers, sequences: Count, width: Count, tokens: Count) -> Seconds:
        ffn = run.ffn
        return self.routing.distinct(ffn.experts, ffn.experts_per_token, sequences, width, tokens - sequences * width)

    def _head(self, rows: Count) -> Gemm:
        return gemm(self.model.outer_linears()[-1], rows, self.model.embedding_bytes, self.tensor_parallel)

    def _gemm_seconds(self, tokens: Count) -> Seconds:
        """All matrices but the routed experts and the LM head."""
        total = self._linears_seconds(self.model.outer_linears()[:-1], tokens)
        for run in self.model.layers:
            total = total + run.count * self._linears_seconds(self._linears(run), tokens)
        return total

    def _linears_seconds(self, linears: list[Linear], tokens: Count) -> Seconds:
        total: Seconds = 0.0
        for linear in linears:
            cut = gemm(linear, tokens, self.model.weight_bytes, self.tensor_parallel)
            total = total + self._gemm_s(cut, self.dtype)
        return total

    def _gemm_s(self, cut: Gemm, dtype: str) -> Seconds:
        peaks, efficiency = self.peaks(dtype), self.constants.dense_at(dtype)
        if self.table is None:
            return efficiency.gemm_s(cut, peaks)
        return self.table.gemm_s(cut, dtype, efficiency, peaks)

    def _experts_seconds(self, sequences: Count, width: Count, tokens: Count) -> Seconds:
        peaks, efficiency = self.peaks(self.dtype), self.constants.experts_at(self.dtype)
        total: Seconds = 0.0 * np.asarray(tokens)
        for run in self.model.layers:
            if run.ffn.kind == "moe":
                experts, distinct = self._experts(run), self._distinct(run, sequences, width, tokens)
                layer_s = experts.seconds(distinct, tokens, efficiency, peaks)
                if self.table is not None:
                    layer_s = self.table.experts_s(experts, distinct, tokens, self.dtype, layer_s, peaks)
                total = total + run.count * layer_s
        return total

    def _elementwise_seconds(self, tokens: Count) -> Seconds:
        total: Seconds = 0.0
        for run in self.model.layers:
            work = layer_work(run, self.model.hidden, tokens, self.tensor_parallel)
            layer_s = self.constants.elementwise.seconds(work, self.peaks("bf16"), LAYER_KERNELS)
            total = total + run.count * layer_s
        return total


def _computed_tokens(shape: StepShape, padded_tokens: Count | None) -> Count:
    return shape.tokens if padded_tokens is None else np.maximum(padded_tokens, shape.tokens)
