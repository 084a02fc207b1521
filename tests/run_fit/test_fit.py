"""Constants hidden in a simulated benchmark are found again, as far as the load points tell them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from sim import Cluster, Lengths, Synthetic, simulate
from sim.compare import Measured, read_measured, to_vllm_bench
from sim.cost.pricing import Fitted
from sim.run_fit import fit_run, with_constants
from tests.deployments import experiment, speculation

FACTOR, HOST_S = 1.15, 2e-3
PROMPT = Lengths(kind="lognormal", median_tokens=600, sigma=0.4)
OUTPUT = Lengths(kind="lognormal", median_tokens=40, sigma=0.4)


def load(concurrency: int, requests: int, prompt: Lengths = PROMPT, output: Lengths = OUTPUT) -> Synthetic:
    return Synthetic(
        num_requests=requests, arrival="closed_loop", concurrency=concurrency, prompt=prompt, output=output
    )


DESCRIBED = experiment("qwen3_8b", cluster=Cluster(gpu="h200_sxm"), cost=Fitted(), workload=load(1, 1))
LOADS = {1: 5, 48: 50, 16: 24}


TRUE = with_constants(DESCRIBED, FACTOR, HOST_S)


@cache
def document(truth: str, concurrency: int) -> str:
    made = replace(TRUE, workload=load(concurrency, LOADS[concurrency]), seed=concurrency)
    if truth == "fixed lengths":
        fixed = (Lengths(kind="fixed", tokens=tokens) for tokens in (700, 45))
        made = replace(made, workload=load(concurrency, LOADS[concurrency], *fixed))
    elif truth == "SD":
        made = replace(made, speculation=speculation(3))
    return json.dumps(to_vllm_bench(simulate(made)))


def run(tmp_path, concurrency: int, change=lambda found: found, truth: str = "plain") -> Measured:
    path = tmp_path / f"load{concurrency}.json"
    path.write_text(json.dumps(change(json.loads(document(truth, concurrency)))))
    return read_measured(str(path))


def noisy(found: dict) -> dict:
    """Every latency off by 3 % of its own, as clients see them."""
    draws = np.random.default_rng(0)
    for name in ("ttfts", "latencies"):
        found[name] = [value * float(np.exp(0.03 * draws.standard_normal())) for value in found[name]]
    return found


def test_two_loads_far_apart_tell_both_constants_and_predict_the_third(tmp_path):
    fit = fit_run(DESCRIBED, [run(tmp_path, c) for c in LOADS])
    assert [one.fitted for one in fit.runs] == [True, True, False]
    assert fit.kernel_factor.value == pytest.approx(FACTOR, rel=0.01)
    assert fit.step_host_s.value == pytest.approx(HOST_S, rel=0.03)
    assert 0 < fit.kernel_factor.error < 0.1
    third = fit.runs[2]
    assert max(abs(third.after[name].error) for name in ("tpot_mean", "ttft_p50", "output_tokens_per_s")) < 0.01
    assert abs(third.before["tpot_mean"].error) > 0.15
    assert (fit.experiment.cost.kernel_factor, fit.experiment.engine.step_host_s) == (
        fit.kernel_factor.value,
        fit.step_host_s.value,
    )


def test_noise_stays_within_the_standard_errors(tmp_path):
    fit = fit_run(DESCRIBED, [run(tmp_path, c, noisy) for c in (1, 48)], fitted=2)
    for constant, truth in ((fit.kernel_factor, FACTOR), (fit.step_host_s, HOST_S)):
        assert abs(constant.value - truth) < 3 * constant.error


def test_one_load_at_batch_one_holds_a_constant_and_says_so(tmp_path):
    fit = fit_run(DESCRIBED, [run(tmp_path, c) for c in (1, 16)])
    held, free = sorted(fit.constants, key=lambda constant: constant.error is not None)
    assert held.error is None
    assert held.value == held.before
    assert held.note.startswith("held: these runs tell it apart from")
    assert free.error > 0
    assert fit.error(fitted=True) < 0.05
    assert fit.error() < abs(fit.runs[1].before["tpot_mean"].error)


def bare(found: dict) -> dict:
    """As without --save-detailed."""
    lists = {"ttfts", "itls", "latencies", "input_lens", "output_lens", "start_times", "queue_times", "errors"}
    return {name: value for name, value in found.items() if name not in lists}


def test_statistics_alone_tell_one_constant(tmp_path):
    fit = fit_run(DESCRIBED, [run(tmp_path, 16, bare, "fixed lengths")])
    assert fit.metrics == ("tpot_mean",)
    assert abs(fit.runs[0].after["tpot_mean"].error) < 0.005
    assert sum(constant.error is None for constant in fit.constants) == 1
    assert any("16.json does not say when requests came: 24 are drawn" in note for note in fit.runs[0].notes)


def test_metrics_choose_what_is_fitted(tmp_path):
    fit = fit_run(DESCRIBED, [run(tmp_path, 16)], metrics=["output_tokens_per_s"])
    assert fit.metrics == ("output_tokens_per_s",)
    assert abs(fit.runs[0].after["output_tokens_per_s"].error) < 0.002
    with pytest.raises(ValueError, match=r"metrics must be among .*tpot_mean.* got foo"):
        fit_run(DESCRIBED, [run(tmp_path, 16)], metrics=["foo"])


def test_runs_with_speculation(tmp_path):
    described = replace(DESCRIBED, speculation=speculation(3))
    fit = fit_run(described, [run(tmp_path, 16, truth="SD")], metrics=["itl_p50", "tpot_mean"])
    before = np.mean([abs(fit.runs[0].before[name].error) for name in fit.metrics])
    assert fit.error(fitted=True) < 0.5 * before


def test_a_wrong_deployment_ends_on_a_bound_and_is_called_out(tmp_path):
    slow = replace(DESCRIBED, cluster=Cluster(gpu="l4"))
    fit = fit_run(slow, [run(tmp_path, 16)])
    assert any("on its bound" in constant.note for constant in fit.constants) or fit.error(fitted=True) > 0.1


@pytest.mark.parametrize(
    ("runs", "fitted", "message"),
    [(0, 0, "run must name at least one measured run"), (1, 2, "fit must lie in 1 to 1"), (1, -1, "fit must lie in 1")],
)
def test_what_cannot_be_fitted(tmp_path, runs, fitted, message):
    with pytest.raises(ValueError, match=message):
        fit_run(DESCRIBED, [run(tmp_path, 1)] * runs, fitted)


def test_the_truth_needs_no_fit(tmp_path):
    fit = fit_run(TRUE, [run(tmp_path, 16)])
    assert all(abs(one.error) < 1e-3 for one in fit.runs[0].after.values())
    for constant in fit.constants:
        assert constant.value == pytest.approx(constant.before, rel=1e-3)
