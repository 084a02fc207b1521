"""Acceptance figures of a run, and the terms of eq. 4 measured in it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sim import theory
from sim.metrics.rounds import acceptance, equation4
from sim.metrics.summary import block_shape
from sim.run import simulate
from sim.serving.prefill_first import StaticBatch
from sim.speculation.ngram import NGram
from tests import deployments


def run(rate=0.8, drafts=3, batch=16, **changes):
    """A static batch of long outputs: rounds in their thousands, and none beside a prompt."""
    workload = replace(deployments.workload(batch, 1.0, 200, 400), arrival="batch", rate_per_s=None)
    settings = {
        "workload": workload,
        "scheduler": StaticBatch(max_seqs=batch, max_batched_tokens=8192),
        "speculation": deployments.speculation(drafts, rate),
    }
    return simulate(deployments.experiment("qwen3_30b_a3b", **settings | changes))


@pytest.mark.parametrize("rate", [0.0, 0.35, 0.8, 1.0])
def test_alpha_of_a_run_is_the_rate_it_was_given(rate):
    found = acceptance(run(rate).recorder)
    assert found["alpha"] == pytest.approx(rate, abs=0.02)
    assert found["sigma"] == pytest.approx(float(theory.sigma(found["alpha"], 3)))
    assert found["acceptance_length"] == pytest.approx(4 * found["sigma"])


@pytest.mark.parametrize("gamma", [1, 3, 2.4])
def test_alpha_inverts_sigma(gamma):
    for alpha in (0.0, 0.2, 0.77, 1.0):
        assert theory.alpha_of(float(theory.sigma(alpha, gamma)), gamma) == pytest.approx(alpha, abs=1e-7)
    assert theory.alpha_of(1.0, 0) == 0.0
    with pytest.raises(ValueError, match="sigma must lie in"):
        theory.alpha_of(0.1, 3)


def test_terms_are_those_of_the_prices():
    result = run()
    summary = result.summary()
    terms, blocks = summary["equation_4"], result.recorder.blocks()
    assert summary["target_efficiency"] == pytest.approx(1 / terms["verify"])
    shape = block_shape({name: column[(blocks["chunks"] == 0)] for name, column in blocks.items()})
    each = result.cost.families(shape)["draft"] / result.cost.target_step_s(shape, 1)
    assert np.min(each) <= terms["draft"] <= np.max(each)
    assert terms["speedup"] == pytest.approx(
        terms["tokens_per_round"] / (terms["draft"] + terms["verify"] + terms["reject"])
    )
    json.dumps(summary, allow_nan=False)


def test_a_free_drafter_has_no_draft_term():
    speculation = replace(deployments.speculation(), drafter=NGram(match_rate=1.0, host_s=0.0, sequence_host_s=0.0))
    assert run(speculation=speculation).summary()["equation_4"]["draft"] == 0.0


def test_a_run_without_rounds_has_no_terms():
    result = run(speculation=None)
    assert result.summary()["equation_4"] == {}
    assert result.summary()["target_efficiency"] is None
    assert equation4(result.recorder.parts(), result.cost_at, 1.0) == {}


def test_steps_name_the_experts_they_activate():
    steps = run().steps_frame()
    assert steps["activated_experts"].between(8, 128).all()
