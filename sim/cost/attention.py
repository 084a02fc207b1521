"""Attention of one layer on one tensor-parallel rank: decode or verification, and prefill.

The matrices (projections, the indexer's, MLA's up-projections of new tokens) are dense GEMMs and priced there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.attention import Attention
from sim.cost.efficiency import DecodeEfficiency, PrefillEfficiency
from sim.cost.latent import LatentCore, LatentEfficiency
from sim.cost.shape import Count, Seconds, StepShape
from sim.cost.work import ACTIVATION_BYTES, Amount, AttentionCore, Peaks, Work, at_least

_DELTA_BLOCK_TOKENS = 64
"""Tokens per block of the block-parallel gated delta rule in prefill (flash-linear-attention's chunk size)."""


@dataclass(frozen=True, slots=True)
class RankAttention:
    """The attention of one layer as one of `tensor_parallel` ranks computes it.

    Query heads are cut over the ranks; KV heads too, until each rank holds one: from there on, and for a latent cache
    always, every rank holds and reads a copy.
    """

    attention: Attention
    tensor_parallel: int
    kv_bytes: float
    state_bytes: float

    @property
    def heads(self) -> int:
        """Query heads of the rank."""
        return -(-self.attention.heads // self.tensor_parallel)

    @property
    def kv_heads(self) -> int:
        """KV heads of the rank."""
        return -(-self.attention.kv_heads // self.tensor_parallel)

    @property
    def token_bytes(self) -> float:
        """Cache bytes of one token that attention reads, the indexer's keys apart."""
        a = self.attention
        elements = a.kv_rank + a.rope_dim if a.latent else self.kv_heads * (a.head_dim + a.value_width)
        return elements * self.kv_bytes

    @property
    def sequence_state_bytes(self) -> float:
        """State of one sequence under linear attention."""
        return self.attention.state_elements * self.state_bytes / self.tensor_parallel

    @property
    def absorbed_widths(self) -> int:
        """Query-key plus value width of one head over the cache: that of the latent where MLA is absorbed."""
        a = self.attention
        return 2 * a.kv_rank + a.rope_dim if a.latent else a.head_dim + a.value_width

    @property
    def core_width(self) -> float:
        """Half the cached elements of a token in one KV head: the head width of plain attention."""
        a = self.attention
        return (a.kv_rank + a.rope_dim if a.latent else a.head_dim + a.value_width) / 2

    def decode(self, shape: StepShape, efficiency: DecodeEfficiency, peaks: Peaks) -> Seconds:
        """Seconds of the decoding sequences, one kernel."""
        if self.attention.kind == "linear":
            return efficiency.seconds(self.decode_work(shape), peaks)
        return efficiency.decode_s(self.decode_core(shape, efficiency.tile_rows), peaks)

    def latent(self, shape: StepShape, efficiency: LatentEfficiency, peaks: Peaks) -> Seconds:
        """Seconds of the decoding sequences over a latent cache, one kernel."""
        return efficiency.latent_s(self.latent_core(shape, efficiency.tile_rows), peaks)

    def decode_core(self, shape: StepShape, tile_rows: int) -> AttentionCore:
        """The decoding sequences of `shape`, `tile_rows` query rows to a block; not for linear attention."""
        blocks = shape.sequences * self.kv_heads * self._tiles(shape.width, tile_rows)
        tokens = self._reach(shape.context_tokens, shape.sequences) + shape.width
        if self.attention.kind == "sparse":
            tokens = np.minimum(tokens, self.attention.top_k_tokens)
        work = self.decode_work(shape, tile_rows)
        return AttentionCore(work, shape.sequences, blocks, tokens, self.core_width)

    def latent_core(self, shape: StepShape, tile_rows: int) -> LatentCore:
        """The decoding sequences of `shape` over a latent cache: read once, whole tiles of query rows multiplied."""
        blocks = shape.sequences * self._tiles(shape.width, tile_rows)
        rows = shape.decode_tokens * self.heads
        work = self.decode_work(shape)
        computed = Work(work.flops * blocks * tile_rows / np.maximum(rows, 1), work.bytes)
        tokens = self._reach(shape.context_tokens, shape.sequences) + shape.width
        return LatentCore(computed, blocks, rows, tokens)

    def decode_work(self, shape: StepShape, tile_rows: int | None = None) -> Work:
        """FLOPs and bytes of the decoding sequences; `tile_rows` None for a kernel that reads the cache once.

        Every sequence counts with the mean context, cut at the window (also for chunks: an upper bound there).
        """
        if self.attention.kind == "linear":
            # Every verified position leaves a state to fall back to.
            return self._linear_work(shape.decode_tokens, shape.sequences * (1 + np.asarray(shape.width)))
        if self.attention.kind == "sparse":
            return self._sparse_decode_work(shape)
        cached = shape.sequences * self._reach(shape.context_tokens, shape.sequences)
        pairs = shape.width * cached + shape.decode_tokens * (np.asarray(shape.width) + 1) / 2
        reads = 1 if tile_rows is None else self._tiles(shape.width, tile_rows)
        moved = reads * (cached + shape.decode_tokens) * self.token_bytes
        return self._pairs_work(pairs, shape.decode_tokens) + Work(bytes=moved)

    def prefill(self, shape: StepShape, efficiency: PrefillEfficiency, peaks: Peaks) -> Seconds:
        """Seconds of the prefill chunks: one kernel."""
        if self.attention.kind == "linear":
            return efficiency.seconds(self.prefill_work(shape), peaks)
        return efficiency.prefill_s(self.prefill_core(shape), peaks)

    def prefill_core(self, shape: StepShape) -> AttentionCore:
        """The prefill chunks of `shape`, as long as their mean; not for linear attention."""
        a = self.attention
        tokens = (shape.prefill_history_tokens + shape.prefill_tokens) / at_least(shape.chunks, 1)
        if a.window_tokens or a.kind == "sparse":
            tokens = np.minimum(tokens, a.window_tokens or a.top_k_tokens)
        width = (a.head_dim + a.value_width) / 2
        return AttentionCore(self.prefill_work(shape), shape.chunks, shape.chunks * self.kv_heads, tokens, width)

    def prefill_work(self, shape: StepShape) -> Work:
        """FLOPs and bytes of the prefill chunks; MLA multiplies keys and values out again, those of the history too."""
        a = self.attention
        tokens: Amount = shape.prefill_tokens
        history: Amount = shape.prefill_history_tokens
        if a.kind == "linear":
            inside = 2 * tokens * _DELTA_BLOCK_TOKENS * self.heads * (a.head_dim + a.value_width)
            return self._linear_work(tokens, 2 * np.asarray(shape.chunks)) + Work(flops=inside)
        pairs = shape.prefill_pairs * 1.0
        kv_read = shape.chunks * self._reach(history, shape.chunks) + tokens
        if a.window_tokens:
            # Aligned chunks are on average half full.
            pairs = np.minimum(pairs, tokens * (a.window_tokens if a.kind == "sliding" else a.window_tokens / 2))
        elif a.kind == "sparse":
            indexing = self._indexing(pairs, kv_read)
            selected = np.minimum(pairs, tokens * np.float64(a.top_k_tokens))
            return self._pairs_work(selected, tokens) + Work(bytes=kv_read * self.token_bytes) + indexing
        work = Work(bytes=kv_read * self.token_bytes)
        if not a.latent:
            return work + self._pairs_work(pairs, tokens)
        multiplied = 2.0 * history * a.kv_rank * self.heads * (a.head_dim - a.rope_dim + a.value_width)
        widths = a.head_dim + a.value_width
        core = Work(2 * pairs * self.heads * widths, tokens * self.heads * widths * float(ACTIVATION_BYTES))
        return work + core + Work(flops=multiplied)

    def _tiles(self, width: Count, tile_rows: int) -> Count:
        return -(-width * (self.heads // self.kv_heads) // tile_rows)

    def _reach(self, tokens: Amount, sequences: Amount) -> Amount:
        """Mean cached tokens per sequence, cut at the window."""
        mean: Amount = tokens / at_least(sequences, 1)
        return np.minimum(mean, self.attention.window_tokens) if self.attention.window_tokens else mean

    def _pairs_work(self, pairs: Amount, tokens: Amount) -> Work:
        """Two products per query-key pair and head; queries in and outputs out."""
        widths = self.heads * self.absorbed_widths
        return Work(2.0 * pairs * widths, float(ACTIVATION_BYTES) * tokens * widths)

    def _linear_work(self, tokens: Amount, state_moves: Amount) -> Work:
        """Gated delta rule: 7 FLOPs per state element and token; reads and writes of whole states."""
        a = self.attention
        flops = 7.0 * tokens * self.heads * a.head_dim * a.value_width
        channels = (a.conv_channels + a.heads * a.value_width) / self.tensor_parallel
        return Work(flops, state_moves * self.sequence_state_bytes + tokens * channels * float(ACTIVATION_BYTES))

    def _sparse_decode_work(self, shape: StepShape) -> Work:
        """Every query token gathers its own top-k, after the indexer has scored the whole cache once per sequence."""
        context = self._reach(shape.context_tokens, shape.sequences)
        cached = shape.sequences * context + shape.decode_tokens
        pairs = shape.width * shape.sequences * context + shape.decode_tokens * (np.asarray(shape.width) + 1) / 2
        chosen = shape.decode_tokens * np.minimum(context + 1, self.attention.top_k_tokens)
        return (
            self._pairs_work(chosen, shape.decode_tokens)
            + Work(bytes=chosen * self.token_bytes)
            + self._indexing(pairs, cached)
        )

    def _indexing(self, pairs: Amount, cached: Amount) -> Work:
        """The lightning indexer, whole on every rank: scores of all pairs from one small key per cached token."""
        a = self.attention
        return Work(2.0 * pairs * a.index_heads * a.index_dim, cached * (a.index_dim * self.kv_bytes))
