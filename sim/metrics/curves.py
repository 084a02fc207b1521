"""What a deployment does at every batch size: plain steps against SD rounds, activated experts, target efficiency."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.cost.shape import StepShape
from sim.cost.step import StepCost


def batch_curves(
    cost: StepCost, context_tokens: int, acceptance_length: float, batches: ArrayLike
) -> dict[str, NDArray[np.float64]]:
    """Curves of a deployment with SD over the batch size, all sequences decoding.

    Args:
        cost: the deployment with SD.
        context_tokens: cached tokens of each sequence.
        acceptance_length: tokens a round emits per sequence, in [1, verify width].
        batches: sequences, whole numbers >= 1, shape (n,).

    Returns:
        float64 (n,) each: `batch`; `plain_step_s` and `round_s`, whole steps without and with SD; `speedup`, tokens per
        second with SD over those without; `target_efficiency`, T_T(B, 1) / T_T(B, width); `experts_plain` and
        `experts_verify`, N(t) per MoE layer at t = B and t = B width, 0 for a dense model.

    Raises:
        ValueError: an argument out of bounds.
    """
    batch = np.asarray(batches, dtype=np.int64)
    width = cost.width
    if cost.drafting is None:
        raise ValueError("cost.drafting must be set, got None; curves compare rounds of SD with plain steps")
    if context_tokens < 0:
        raise ValueError(f"context_tokens must be >= 0, got {context_tokens}")
    if not 1 <= acceptance_length <= width:
        raise ValueError(f"acceptance_length must lie in [1, width = {width}], got {acceptance_length}")
    if not batch.size or batch.min() < 1:
        raise ValueError(f"batches must be >= 1 and not empty, got {batch.tolist()}")
    plain = StepShape(sequences=batch, context_tokens=batch * context_tokens)
    verify = replace(plain, width=width)
    plain_step_s = np.asarray(replace(cost, width=1, draft=None, drafting=None).seconds(plain))
    round_s = np.asarray(cost.seconds(verify))
    return {
        "batch": batch.astype(np.float64),
        "plain_step_s": plain_step_s,
        "round_s": round_s,
        "speedup": acceptance_length * plain_step_s / round_s,
        "target_efficiency": np.asarray(cost.target_step_s(plain, 1)) / np.asarray(cost.target_step_s(plain, width)),
        "experts_plain": np.asarray(cost.target.distinct_experts(plain)),
        "experts_verify": np.asarray(cost.target.distinct_experts(verify)),
    }


def mean_context_tokens(blocks: dict[str, NDArray[np.int64]]) -> int:
    """Cached tokens of a decoding sequence, mean over all sequences of all steps; 0 where nothing decoded."""
    sequence_steps = int((blocks["sequences"] * blocks["steps"]).sum())
    return int(blocks["context_tokens"].sum()) // max(1, sequence_steps)
