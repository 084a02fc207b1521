"""`cost=moesd`: the paper's model of a pass, fitted to the op-level one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import compose, simulate
from sim.cost.shape import StepShape
from sim.run import step_cost


def fitted(model, *overrides):
    return compose(f"model={model}", "cost=moesd", "workload.num_requests=40", *overrides)


@pytest.mark.parametrize("model", ["qwen2_57b_a14b", "qwen3_32b"])
def test_few_parameters_carry_a_pass(model):
    target = step_cost(fitted(model)[0]).target
    assert target.passes.rel_error < 0.05
    assert min(target.passes.bias, target.passes.k1, target.passes.k2, target.passes.k3) >= 0
    assert (target.passes.k2 > 0) == target.model.is_moe


def test_loads_of_experts_follow_equation_8():
    target = step_cost(fitted("qwen2_57b_a14b")[0]).target
    tokens = np.array([1, 2, 8, 64])
    hit = target.model.layers[0].ffn.experts * (1 - (1 - 8 / 64) ** tokens)
    loads = target.passes.experts_s(tokens) - target.passes.k3 * target.passes.s ** (tokens * 8 / hit)
    assert loads == pytest.approx(target.passes.k2 * hit)


def test_a_pass_knows_no_context():
    target = step_cost(fitted("qwen3_32b")[0]).target
    near, far = (target.seconds(StepShape(sequences=8, context_tokens=8 * c)) for c in (10, 10_000))
    assert near == far


def test_it_runs_with_and_without_drafts():
    plain, drafting = (simulate(experiment).summary() for experiment in fitted("qwen2_57b_a14b"))
    op_level = simulate(compose("model=qwen2_57b_a14b", "cost=fitted", "workload.num_requests=40")[0]).summary()
    assert plain["tpot_s"]["mean"] == pytest.approx(op_level["tpot_s"]["mean"], rel=0.15)
    assert drafting["tpot_s"]["mean"] < plain["tpot_s"]["mean"]


def test_refusals():
    experiment = fitted("qwen3_32b")[0]
    with pytest.raises(ValueError, match=r"cost\.context_tokens"):
        replace(experiment.cost, context_tokens=-1)
    with pytest.raises(ValueError, match="cost=moesd knows no data-parallel"):
        experiment.cost.forward(experiment.model, None, None, 1, False, experiment.routing, data_parallel=2)
