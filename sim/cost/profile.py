"""A layer profile: kernel times of one model's layers on one GPU, as an engine's own layer-wise profiler saw them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.cost.profile_attention import AttentionGrid, Floats
from sim.cost.routing import Routing
from sim.hardware import read_gpu

if TYPE_CHECKING:
    import pandas as pd

ONCE = ("embedding", "final_layernorm")
"""Layers that a pass runs once; of the others each decoder layer has one, of these two:"""

TWICE = ("layernorm",)

GRID_OPS = ("attention_prefill", "attention_decode", "attention_mixed")
TOKEN_OPS = ("gemm", "norm", "rope", "activation", "embedding")
FEW_LONG = 0.125
"""Share of long sequences up to which a skewed batch counts as one with stragglers."""

FIRST_LEAD_TOKENS = 1000
"""Leads below this are left out of the straggler's rate: launch noise is of the size of the effect there."""

SPLIT_BELOW = 0.8
BLOCKS_PER_SM = 2
"""FlashAttention 2 cuts the cache of a sequence only while sequences x KV heads are below this share of the thread
blocks that fit on the GPU (`num_splits_heuristic`, called with twice the SMs)."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A measured quantity over one count: linear between the knots and, as in the last piece, beyond them."""

    knots: Floats
    values: Floats

    def __call__(self, count: Any) -> Floats:
        at = np.asarray(count, dtype=np.float64)
        last = (self.values[-1] - self.values[-2]) / (self.knots[-1] - self.knots[-2])
        beyond = np.maximum(at - self.knots[-1], 0.0)
        return np.asarray(np.interp(at, self.knots, self.values) + beyond * last)


NOTHING = Curve(np.array([0.0, 1.0]), np.zeros(2))
"""No skewed batch was timed."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerProfile:
    """What a pass of the whole model takes on one rank, in seconds; host time and collectives are not in it.

    Attributes:
        token_s: all layers that see tokens, over the query tokens of a step.
        row_s: LM head and sampler, over the sequences that sample.
        attention: of all layers together.
        straggler_s: seconds per token that the longest context of a batch is above the mean, over decoding sequences,
            for steps without prefill: an attention kernel that does not cut a sequence waits for the longest.
        mixed_straggler_s: the same for steps with prefill, whose kernel never cuts.
        uncut_from: decoding sequences from which on the kernel does not cut them.
        chain_s: seconds of one uncut sequence, over its context: no uncut batch is done before its longest.
    """

    token_s: Curve
    row_s: Curve
    attention: AttentionGrid
    straggler_s: Curve
    mixed_straggler_s: Curve
    uncut_from: int
    chain_s: Curve

    def straggled_s(
        self, sequences: int, padded: int, uniform_s: Floats, context: Floats, lead_tokens: float
    ) -> Floats:
        """Attention of decoding sequences alone whose longest context is `lead_tokens` above the mean `context`.

        Args:
            sequences: how many.
            padded: the same after padding to a CUDA graph's size, which is what the kernel sees.
            uniform_s: what they take if all are at the mean.
            context: the mean.
            lead_tokens: >= 0.
        """
        skewed = uniform_s + float(self.straggler_s(sequences)) * lead_tokens
        if padded < self.uncut_from or not lead_tokens:
            return skewed
        return np.maximum(skewed, self.chain_s(context + lead_tokens))

    @classmethod
    def from_rows(cls, rows: pd.DataFrame, layers: int, routing: Routing | None = None) -> LayerProfile:
        """A profile from kernel-trace rows of one GPU, model and tensor-parallel degree.

        Args:
            rows: columns of a kernel trace; layers of dense GEMMs and small kernels by `tokens` or `m`, `lm_head` and
                `sampling` by sequences, attention on a grid, skewed batches, `moe_block` by tokens and experts hit.
            layers: decoder layers of the model; the rows time one.
            routing: how tokens choose experts; needed for MoE.

        Raises:
            ValueError: rows of several deployments or models, or a table that is missing or too small.
        """
        for name in ("gpu", "model", "tensor_parallel"):
            values = rows[name].dropna().unique().tolist()
            if len(values) > 1:
                raise ValueError(f"a layer profile is of one {name}, got {', '.join(map(str, values))}")
        pure, mixed = (_stragglers(rows, layers, beside=beside) for beside in (False, True))
        grid = rows[rows["op"].isin(GRID_OPS) & rows["layer"].isna()]
        uncut = _uncut_from(rows)
        return cls(
            token_s=_token_curve(rows, layers, routing),
            row_s=_row_curve(rows),
            attention=_attention(grid, layers),
            straggler_s=pure,
            mixed_straggler_s=mixed,
            uncut_from=uncut,
            chain_s=_chain(rows, layers, uncut),
        )


def _token_curve(rows: pd.DataFrame, layers: int, routing: Routing | None) -> Curve:
    part = rows[rows["op"].isin(TOKEN_OPS)]
    tokens = part["tokens"].fillna(part["m"]).to_numpy(np.int64)
    names = part["layer"].to_numpy(str)
    times = np.where(np.isin(names, ONCE), 1, np.where(np.isin(names, TWICE), 2 * layers, layers))
    knots, at, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    full = counts == counts.max()
    total = np.bincount(at, part["latency_s"].to_numpy(np.float64) * times)[full]
    knots = knots[full].astype(np.float64)
    if len(knots) < 2:
        raise ValueError(f"a layer profile needs its layers at two token counts or more, got {len(knots)}")
    block = rows[rows["op"] == "moe_block"]
    if len(block):
        total = total + layers * _moe_block(block, routing)(knots)
    return Curve(knots, total)


def _moe_block(rows: pd.DataFrame, routing: Routing | None) -> Curve:
    """The MoE block of one layer over tokens, at the experts that `routing` expects them to hit."""
    if routing is None:
        raise ValueError("a layer profile of a MoE model needs a routing: its time depends on the experts hit")
    knots, seconds = [], []
    for tokens, part in rows.groupby("tokens"):
        count = int(str(tokens))
        hit = routing.distinct(int(part["experts"].iloc[0]), int(part["experts_per_token"].iloc[0]), 0, 1, count)
        known = part.sort_values("distinct_experts")[["distinct_experts", "latency_s"]].to_numpy(np.float64)
        knots.append(float(count))
        seconds.append(float(np.interp(hit, known[:, 0], known[:, 1])))
    return Curve(np.array(knots), np.array(seconds))


def _row_curve(rows: pd.DataFrame) -> Curve:
    part = rows[rows["op"].isin(("lm_head", "sampling"))]
    knots, at, counts = np.unique(part["tokens"].fillna(part["batch"]).to_numpy(np.int64), return_inverse=True,
                                  return_counts=True)  # fmt: skip
    if len(knots) < 2:
        raise ValueError(f"a layer profile needs its LM head at two batches or more, got {len(knots)}")
    full = counts == counts.max()
    return Curve(knots[full].astype(np.float64), np.bincount(at, part["latency_s"].to_numpy(np.float64))[full])


def _attention(rows: pd.DataFrame, layers: int) -> AttentionGrid:
    """Prefill alone has its chunk in `width` and its history in `context_tokens`."""
    alone = (rows["op"] == "attention_prefill").to_numpy(bool)
    columns = (
        np.where(alone, _count(rows, "width"), _count(rows, "chunk_tokens")),
        np.where(alone, _count(rows, "context_tokens"), _count(rows, "chunk_context_tokens")),
        np.where(alone, 0, _count(rows, "batch")),
        np.where(alone, 0, _count(rows, "context_tokens")),
    )
    return AttentionGrid.through(np.stack(columns, axis=1), layers * rows["latency_s"].to_numpy(np.float64))


def _count(rows: pd.DataFrame, name: str) -> NDArray[np.int64]:
    return rows[name].fillna(0).to_numpy(np.int64)


def _uncut_from(rows: pd.DataFrame) -> int:
    """By the rule of FlashAttention 2, from the GPU's SMs and the KV heads of the rank."""
    sms = read_gpu(str(rows["gpu"].iloc[0])).sm_count
    heads = int(rows["kv_heads"].dropna().iloc[0])
    return math.ceil(SPLIT_BELOW * BLOCKS_PER_SM * sms / heads)


def _few_long(rows: pd.DataFrame, *, beside: bool) -> pd.DataFrame:
    """Skewed batches with few long sequences, beside a prompt or alone."""
    skewed = rows[(rows["op"] == "attention_skewed") & (rows["long_sequences"] <= FEW_LONG * rows["batch"])]
    return skewed[(skewed["chunk_tokens"] > 0) == beside]


def _chain(rows: pd.DataFrame, layers: int, uncut: int) -> Curve:
    """Of the smallest uncut batch, the fastest for each longest context: there the longest alone sets the time."""
    skewed = _few_long(rows, beside=False)
    skewed = skewed[skewed["batch"] >= uncut]
    skewed = skewed[skewed["batch"] == skewed["batch"].min()]
    seconds = skewed.groupby("long_context_tokens")["latency_s"].min()
    if len(seconds) < 2:
        return NOTHING
    return Curve(seconds.index.to_numpy(np.float64), layers * seconds.to_numpy(np.float64))


def _stragglers(rows: pd.DataFrame, layers: int, *, beside: bool) -> Curve:
    """Median over skewed batches of what they take beyond the uniform batch at their mean, per token of lead."""
    skewed = _few_long(rows, beside=beside)
    if not len(skewed):
        return NOTHING
    batch, long = _count(skewed, "batch"), _count(skewed, "long_sequences")
    short, longest = _count(skewed, "context_tokens"), _count(skewed, "long_context_tokens")
    lead = (longest - short) * (1.0 - long / batch)
    mean = (longest * long + short * (batch - long)) // batch
    uniform = rows[rows["layer"] == "uniform_at_mean"]
    seconds = uniform["latency_s"].groupby(_batches(uniform, _count(uniform, "context_tokens"))).mean()
    base = seconds.reindex(_batches(skewed, mean)).to_numpy(np.float64)
    rate = (skewed["latency_s"].to_numpy(np.float64) - base) / lead
    used = (lead >= FIRST_LEAD_TOKENS) & np.isfinite(rate)
    knots = np.unique(batch[used])
    rates = [max(0.0, float(np.median(rate[used & (batch == knot)]))) for knot in knots]
    return Curve(np.concatenate(([0.0], knots)), layers * np.concatenate(([0.0], rates)))


def _batches(rows: pd.DataFrame, context: NDArray[np.int64]) -> pd.Index[Any]:
    """What batch each row times: sequences, context of each, chunk and its history."""
    import pandas as pd

    axes = [_count(rows, "batch"), context, _count(rows, "chunk_tokens"), _count(rows, "chunk_context_tokens")]
    return pd.Index(list(zip(*(axis.tolist() for axis in axes), strict=True)), tupleize_cols=False)
