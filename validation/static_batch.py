"""The paper's view of an engine: a batch of sequences of one length, no arrivals, no prefill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim import Experiment, compose
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.metrics.curves import batch_curves
from sim.model import with_sparsity
from sim.run import step_cost

Column = NDArray[np.float64]

BATCHES = np.array([1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 80, 100])
"""The paper's batch sizes (arXiv 2505.19645, appendix C)."""
CONTEXT_TOKENS = 250
"""Cached tokens of a sequence: a prompt of HumanEval or MT-bench and half an output, which the paper does not state.
Half or double of it moves the mean errors by less than 0.1 points."""
CLUSTERS = {"2xA800": "a800_x2", "2xH800": "h800_x2", "4xA800": "a800_x4", "4xL40": "l40_x4"}


@lru_cache(maxsize=64)
def deployment(model: str, cluster: str, drafts: int = 0) -> Experiment:
    """A model without SD, or with its paired draft model on one GPU."""
    if not drafts:
        return compose(f"model={model}", f"cluster={cluster}", "speculation=off")[0]
    return compose(
        f"model={model}", f"cluster={cluster}", "speculation=draft_model", f"speculation.length.drafts={drafts}",
        "speculation.drafter.tensor_parallel=1",
    )[-1]  # fmt: skip


def sparser(experiment: Experiment, experts_per_token: int) -> Experiment:
    """The same with another K."""
    return replace(experiment, model=with_sparsity(experiment.model, experts_per_token=experts_per_token))


def without_graphs(experiment: Experiment) -> Experiment:
    """The same without the padding to the sizes of CUDA graphs, and without what launching costs in their absence."""
    engine = replace(experiment.engine, graph_tokens=0, eager_layer_host_s=0.0)
    return replace(experiment, engine=engine)


def shape(width: int, batches: NDArray[np.int64] = BATCHES, context_tokens: int = CONTEXT_TOKENS) -> StepShape:
    """Every batch at once."""
    return StepShape(sequences=batches, width=width, context_tokens=batches * context_tokens)


def step_s(experiment: Experiment, width: int, batches: NDArray[np.int64] = BATCHES) -> Column:
    """Seconds of whole steps of `width` tokens per sequence."""
    return _seconds(step_cost(experiment).seconds, width, batches)


def target_efficiency(experiment: Experiment, drafts: int, batches: NDArray[np.int64] = BATCHES) -> Column:
    """T_T(B, 1) / T_T(B, drafts + 1), of the target alone."""
    cost: StepCost = step_cost(experiment)
    decode_s = cost.target_step_s(shape(1, batches), 1)
    return np.asarray(decode_s / cost.target_step_s(shape(1, batches), drafts + 1), dtype=np.float64)


def speedup(experiment: Experiment, tokens_per_round: float, batches: NDArray[np.int64] = BATCHES) -> Column:
    """Of a deployment with SD over the same without, priced op by op, drafting included."""
    return batch_curves(step_cost(experiment), CONTEXT_TOKENS, tokens_per_round, batches)["speedup"]


def _seconds(price: Callable[[StepShape], object], width: int, batches: NDArray[np.int64]) -> Column:
    return np.broadcast_to(np.asarray(price(shape(width, batches)), dtype=np.float64), batches.shape)
