"""The table of a study: a row per case and batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim import theory
from sim.config import Experiment
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.metrics.curves import batch_curves
from sim.metrics.summary import speedup
from sim.run import simulate, step_cost
from sim.serving.prefill_first import StaticBatch
from sim.study.settings import Study
from sim.workload.lengths import Lengths
from sim.workload.synthetic import Synthetic

_LEAST_REQUESTS = 64
"""Simulated per batch size, so that acceptance averages out."""
_ROUNDS_OF_CLIENTS = 4

Column = NDArray[np.float64]
Row = dict[str, Any]


def rows(study: Study, mode: str, compose: Callable[[list[str]], list[Experiment]]) -> list[Row]:
    """Every case at every batch size.

    Args:
        study: what is varied.
        mode: `static` or `served`, how the simulated batches are served.
        compose: the overrides of a case -> its experiments, without SD first.

    Raises:
        ValueError: a case that has no SD, or is malformed.
    """
    plain_runs: dict[str, list[Row]] = {}
    made: list[Row] = []
    for values, overrides in study.cases():
        experiment = compose(overrides)[-1]
        if experiment.speculation is None:
            raise ValueError(f"every case of a study needs speculation, got none with {' '.join(overrides)}")
        columns = priced(experiment, study)
        found = dict(zip(study.simulated, _speedups(experiment, study, mode, plain_runs), strict=True))
        for i, batch in enumerate(study.batches):
            row = {name: float(column[i]) for name, column in columns.items()}
            made.append({**values, **row, "batch": batch, "simulated_speedup": found.get(batch)})
    return made


def _speedups(experiment: Experiment, study: Study, mode: str, plain_runs: dict[str, list[Row]]) -> list[float]:
    """Simulated speedups in mean TPOT; cases that differ in speculation alone share the runs without it."""

    def summaries(each: Experiment) -> list[Row]:
        return [simulate(batched(each, study, mode, batch)).summary() for batch in study.simulated]

    plain = replace(experiment, speculation=None)
    if repr(plain) not in plain_runs:
        plain_runs[repr(plain)] = summaries(plain)
    pairs = zip(plain_runs[repr(plain)], summaries(experiment), strict=True)
    return [speedup(without, drafted)["tpot"] for without, drafted in pairs]


def priced(experiment: Experiment, study: Study) -> dict[str, Column]:
    """Columns over the batch sizes, all sequences decoding at the mean context.

    Returns:
        The curves of `batch_curves`; `drafts`, `width`, `tokens_per_round` (expected); the terms of eq. 4 `draft_term`,
        `verify_term`, `reject_term`; and of the MoE layers `rho` = K / E, `full_activation_tokens` (eq. 9, tau 0.95),
        `tokens_per_expert` and `tokens_per_expert_verify` (eq. 10 with the experts of the routing), NaN if dense.
    """
    assert experiment.speculation is not None
    cost, batches = step_cost(experiment), np.asarray(study.batches, dtype=np.int64)
    length = experiment.speculation.acceptance.mean_accepted(experiment.drafts) + 1.0
    curves = batch_curves(cost, study.context_tokens, length, batches)
    ones = np.ones(len(batches))
    columns = {"drafts": experiment.drafts * ones, "width": cost.width * ones, "tokens_per_round": length * ones}
    return {**columns, **curves, **_terms(cost, study, batches), **_experts(cost, curves)}


def _terms(cost: StepCost, study: Study, batches: NDArray[np.int64]) -> dict[str, Column]:
    shape = StepShape(sequences=batches, width=cost.width, context_tokens=batches * study.context_tokens)
    families, decode_s = cost.families(shape), cost.target_step_s(shape, 1)
    parts = {
        "draft_term": families["draft"],
        "verify_term": cost.target_step_s(shape, cost.width),
        "reject_term": families["rejection"],
    }
    return {name: np.broadcast_to(np.asarray(part / decode_s), batches.shape) for name, part in parts.items()}


def _experts(cost: StepCost, curves: dict[str, Column]) -> dict[str, Column]:
    ffn = next((run.ffn for run in cost.target.model.layers if run.ffn.kind == "moe"), None)
    batch = curves["batch"]
    if ffn is None:
        nothing = np.full(len(batch), np.nan)
        names = ("rho", "full_activation_tokens", "tokens_per_expert", "tokens_per_expert_verify")
        return dict.fromkeys(names, nothing)
    rho = ffn.experts_per_token / ffn.experts
    return {
        "rho": np.full(len(batch), rho),
        "full_activation_tokens": np.full(len(batch), float(theory.full_activation_tokens(rho))),
        "tokens_per_expert": batch * ffn.experts_per_token / curves["experts_plain"],
        "tokens_per_expert_verify": batch * cost.width * ffn.experts_per_token / curves["experts_verify"],
    }


def batched(experiment: Experiment, study: Study, mode: str, batch: int) -> Experiment:
    """The experiment with so many sequences in flight: one static batch after another, or a closed loop of clients."""
    prompt = Lengths(kind="fixed", tokens=study.prompt_tokens)
    output = Lengths(kind="fixed", tokens=study.output_tokens)
    if mode == "served":
        requests = max(_LEAST_REQUESTS, _ROUNDS_OF_CLIENTS * batch)
        clients = Synthetic(
            num_requests=requests, arrival="closed_loop", concurrency=batch, prompt=prompt, output=output
        )
        return replace(experiment, workload=clients, keep_steps=False)
    whole = batch * -(-_LEAST_REQUESTS // batch)
    # The prompts of a batch fit in one step, so that none of its sequences waits for another's.
    scheduler = StaticBatch(max_seqs=batch, max_batched_tokens=batch * study.prompt_tokens)
    workload = Synthetic(num_requests=whole, arrival="batch", prompt=prompt, output=output)
    return replace(experiment, workload=workload, scheduler=scheduler, keep_steps=False)
