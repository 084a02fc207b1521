"""Small memory-bound kernels between the GEMMs: norms, rotary embedding, cache write, activation, embedding look-up."""

from __future__ import annotations

import numpy as np

from sim.cost.shape import Count
from sim.cost.work import ACTIVATION_BYTES, Work
from sim.layers import Layers
from sim.model import Model

LAYER_KERNELS = 5
"""Two fused residual-and-norm kernels, rotary embedding, cache write and FFN activation (linear attention: convolution
and gated norm in place of rotary embedding and cache write)."""


def layer_work(run: Layers, hidden: int, tokens: Count, tensor_parallel: int) -> Work:
    """Bytes of the kernels of one layer on one rank; their FLOPs never matter. The experts' activation is theirs."""
    a, ffn = run.attention, run.ffn
    norms = 8.0 * hidden  # each reads and writes both the residual and the activations
    # Queries and keys are read and written, keys and values written to the cache.
    rotated = (2.0 * a.heads * a.head_dim + 3.0 * a.kv_heads * (a.head_dim + a.value_width)) / tensor_parallel
    inner = (ffn.width + ffn.shared_width) / tensor_parallel
    return Work(bytes=np.multiply(tokens, ACTIVATION_BYTES * (norms + rotated + ffn.matrices * inner)))


def embedding_work(model: Model, tokens: Count) -> Work:
    """Bytes of the embedding look-up: one row read and written per token."""
    return Work(bytes=np.multiply(tokens, model.embedding_width * (model.embedding_bytes + ACTIVATION_BYTES)))
