from __future__ import annotations

import re

import numpy as np
import pytest

from sim.cost.shape import StepShape
from sim.metrics.curves import batch_curves, mean_context_tokens
from sim.run import step_cost
from tests.report.deployments import DENSE, MOE, experiment, pairs

BATCHES = np.arange(1, 129)
CONTEXT = 800


@pytest.fixture(params=[MOE, DENSE])
def model(request):
    return request.param


def curves(model: str, acceptance_length: float = 3.0, drafts: int = 4):
    return batch_curves(step_cost(experiment(model, drafts)), CONTEXT, acceptance_length, BATCHES)


def test_plain_steps_are_those_of_the_deployment_without_sd(model):
    plain = step_cost(experiment(model, drafts=0))
    shape = StepShape(sequences=BATCHES, context_tokens=BATCHES * CONTEXT)
    np.testing.assert_array_equal(curves(model)["plain_step_s"], plain.seconds(shape))


def test_rounds_priced_together_are_rounds_priced_one_by_one(model):
    cost = step_cost(experiment(model, drafts=4))
    alone = [cost.seconds(StepShape(sequences=b, width=5, context_tokens=b * CONTEXT)) for b in BATCHES.tolist()]
    np.testing.assert_allclose(curves(model)["round_s"], alone, rtol=1e-12)


def test_speedup_grows_with_acceptance_and_a_round_of_one_token_never_pays(model):
    low, high = curves(model, 1.0)["speedup"], curves(model, 4.0)["speedup"]
    np.testing.assert_allclose(high, 4.0 * low)
    assert (low < 1.0).all()


def test_speedup_stays_below_acceptance_length_times_target_efficiency_without_fixed_costs(model):
    """Drafting, rejection and host only add to a round: what the two steps share can at most hide the rest."""
    made = curves(model, 3.0)
    assert (made["speedup"] < 3.0).all()
    assert ((made["target_efficiency"] > 0) & (made["target_efficiency"] <= 1)).all()


def test_experts_depend_on_tokens_alone_and_stay_between_k_and_e():
    made = curves(MOE)
    plain, verify = made["experts_plain"], made["experts_verify"]
    assert plain[0] == pytest.approx(8)  # K experts for one token
    assert (np.diff(plain) >= 0).all()
    assert (verify >= plain).all()
    assert verify.max() <= 64
    np.testing.assert_allclose(verify[:20], plain[4:100:5])  # N(5 B)


def test_a_dense_model_has_no_experts():
    made = curves(DENSE)
    assert not made["experts_plain"].any()
    assert not made["experts_verify"].any()


def test_moe_verifies_best_at_a_medium_batch_and_dense_at_the_smallest():
    """MoESD, section 3: once all experts are hit drafts add none; a dense model has nothing to fill up."""
    moe, dense = curves(MOE)["target_efficiency"], curves(DENSE)["target_efficiency"]
    assert moe.max() > 1.2 * moe[0]
    assert moe.max() > 1.2 * moe[-1]
    assert dense[0] > 0.98 * dense.max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": [0, 1]}, "batches must be >= 1"),
        ({"batches": []}, "not empty"),
        ({"acceptance_length": 5.5}, "acceptance_length must lie in [1, width = 5], got 5.5"),
        ({"context_tokens": -1}, "context_tokens must be >= 0, got -1"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"context_tokens": 1, "acceptance_length": 2.0, "batches": [1]} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        batch_curves(step_cost(experiment(drafts=4)), **arguments)


def test_a_deployment_without_sd_has_no_curves():
    with pytest.raises(ValueError, match=r"cost\.drafting must be set"):
        batch_curves(step_cost(experiment()), 1, 1.0, [1])


def test_mean_context_lies_between_prompt_and_prompt_plus_output():
    for result in pairs():
        assert 700 <= mean_context_tokens(result.recorder.blocks()) <= 820
