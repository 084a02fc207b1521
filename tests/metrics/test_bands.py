"""Errors of op families as bands: laws of their draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import simulate
from sim.cost.errors import ASSUMED, CONSTANTS, deviation, family_errors
from sim.cost.pricing import Fitted
from sim.hardware import read_gpu
from sim.metrics.bands import (
    MeasuredStep,
    family_seconds,
    interval,
    shares_of,
    speedup_factors,
    step_error,
    step_factors,
)
from sim.metrics.summary import block_seconds
from sim.run import step_cost
from tests.deployments import experiment, speculation

MOE = experiment(cost=Fitted(), speculation=speculation())
COST = step_cost(MOE)
ERRORS = family_errors(COST.target)
SHARES = {"gemm": 0.3, "experts": 0.4, "attention_decode": 0.2, "host": 0.1}


def test_families_sum_to_the_blocks():
    result = simulate(MOE)
    blocks = result.recorder.blocks()
    families = family_seconds(blocks, result.cost_at)
    assert sum(families.values()) == pytest.approx(block_seconds(blocks))
    assert sum(shares_of(families, np.ones(len(blocks["steps"]))).values()) == pytest.approx(1.0)
    assert set(families) <= set(ERRORS)


def test_draws_spread_as_the_errors_add_up():
    logs = np.log(step_factors(SHARES, ERRORS, 1))
    assert logs.std() == pytest.approx(step_error(SHARES, ERRORS), rel=0.1)
    assert abs(logs.mean()) < 0.2 * logs.std()


def test_a_measured_gpu_has_its_held_out_errors_and_another_those_of_kin():
    own = COST.target.constants
    assert ERRORS["gemm"] == pytest.approx(deviation(own.dense.error))
    assert ERRORS["elementwise"] == deviation(ASSUMED)
    kin = family_errors(replace(COST.target, gpu=replace(read_gpu("h20"), name="cousin", architecture="hopper")))
    stranger = family_errors(replace(COST.target, gpu=read_gpu("mi300x")))
    assert kin["experts"] == pytest.approx(deviation(own.kin_errors["experts"]))
    assert stranger["experts"] == pytest.approx(deviation(own.stranger_errors["experts"]))
    assert set(kin) == set(stranger) == {*CONSTANTS, "host", "draft"}


def test_what_two_widths_share_cancels_in_their_ratio():
    plain, verify = (np.log(step_factors(SHARES, ERRORS, width)) for width in (1, 4))
    assert np.array_equal(step_factors(SHARES, ERRORS, 1), step_factors(SHARES, ERRORS, 1))
    assert 0.3 < np.corrcoef(plain, verify)[0, 1] < 0.95


def test_a_measured_step_leaves_its_own_error_and_little_to_its_like():
    known = MeasuredStep(shares=SHARES, width=1, error=0.01)
    own = np.log(step_factors(SHARES, ERRORS, 1, known)).std()
    assert own == pytest.approx(deviation(0.01) / 0.7, rel=0.1)
    other = {"gemm": 0.2, "experts": 0.5, "attention_decode": 0.2, "host": 0.1}
    assert own < np.log(step_factors(other, ERRORS, 4, known)).std() < np.log(step_factors(other, ERRORS, 4)).std()


def test_speedup_bands_hold_one_and_widen_with_the_level():
    factors = speedup_factors(COST, 500, 16)
    low, high = interval(factors)
    assert low < 1 < high
    wider = interval(factors, 0.95)
    assert wider[0] < low < high < wider[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shares": {"gemm": 0.5}}, "measured_step.shares must be >= 0 and sum to 1"),
        ({"width": 0}, "measured_step.width must be >= 1, got 0"),
        ({"error": -0.1}, "measured_step.error must be >= 0, got -0.1"),
    ],
)
def test_a_step_that_cannot_have_been_measured(change, message):
    with pytest.raises(ValueError, match=message):
        MeasuredStep(**{"shares": SHARES, "width": 1, "error": 0.02} | change)
