"""Deployments whose steps are slower by a factor."""

from __future__ import annotations

import numpy as np
import pytest

from sim.cost.pricing import Fitted
from sim.cost.shape import StepShape
from sim.run import step_cost
from sim.scaled import slower_kernels, slower_steps
from tests.deployments import experiment, speculation

SHAPES = StepShape(
    sequences=np.array([1, 40, 3]),
    width=4,
    context_tokens=np.array([500, 40_000, 900]),
    chunks=np.array([0, 0, 1]),
    prefill_tokens=np.array([0, 0, 700]),
    prefill_pairs=np.array([0, 0, 245_350]),
    completed=np.array([0, 0, 1]),
)


@pytest.mark.parametrize("model", ["qwen3_30b_a3b", "qwen3_8b"])
def test_slower_steps_take_the_factor_to_the_last_family(model):
    base = experiment(model, cost=Fitted(), speculation=speculation())
    before, after = (step_cost(one).families(SHAPES) for one in (base, slower_steps(base, 1.5)))
    for name, seconds in before.items():
        assert np.asarray(after[name]) == pytest.approx(1.5 * np.asarray(seconds), rel=1e-9), name


def test_slower_kernels_leave_the_host_alone_and_multiply():
    base = experiment("qwen3_8b", cost=Fitted())
    twice = slower_kernels(slower_kernels(base, 1.2), 1.5)
    assert twice.cost.kernel_factor == pytest.approx(1.8)
    assert twice.engine == base.engine
