"""`moesd-sim calibrate run=` writes a file, and `calibration=` takes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim import simulate
from sim.application import compose
from sim.bands import run_bands
from sim.compare import write_vllm_bench
from sim.metrics.bands import interval
from sim.run_fit import read_run_calibration, with_constants
from sim.run_fit.command import main

SERVED = ("model=llama32_1b", "cluster=h100", "speculation=off", "workload=poisson_fixed")


@pytest.fixture(scope="module")
def described():
    return compose(*SERVED, "workload.num_requests=30")[0]


@pytest.fixture(scope="module")
def bench(tmp_path_factory, described):
    folder = tmp_path_factory.mktemp("bench")
    truth = with_constants(described, 1.0, 2e-3)
    for rate in (2.0, 40.0):
        result = simulate(replace(truth, workload=replace(truth.workload, rate_per_s=rate)))
        write_vllm_bench(result, folder / f"rate{rate:g}.json")
    return folder


@pytest.fixture(scope="module")
def written(bench):
    out = bench / "mine.yaml"
    words = (f"run={bench / 'rate2.json'},{bench / 'rate40.json'}", f"out={out}", *SERVED)
    assert main(words, compose) == 0
    return out


def test_the_file_names_what_was_served_fitted_and_predicted(written):
    found = read_run_calibration(written)
    assert (found.gpu, found.engine, found.model, found.tensor_parallel) == ("h100_sxm", "vLLM 0.10", "Llama-3.2-1B", 1)
    assert found.step_host_s == pytest.approx(2e-3, rel=0.05)
    assert list(found.fitted_on) == ["rate2.json"]
    assert abs(found.predicted["rate40.json"]["tpot_mean"]) < 0.03
    assert f"#   moesd-sim {' '.join(SERVED[:3])} calibration={written}" in written.read_text().splitlines()


def test_a_later_run_takes_it_and_its_bands_are_narrower(written, described):
    taken = compose(*SERVED, "workload.num_requests=30", f"calibration={written}")[0]
    found = read_run_calibration(written)
    assert (taken.cost.kernel_factor, taken.engine.step_host_s) == (found.kernel_factor, found.step_host_s)

    def width(experiment):
        low, high = interval(run_bands(simulate(experiment)).draws["tpot_s"]["mean"])
        return high - low

    assert width(taken) < 0.7 * width(replace(taken, measured_step=None))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("cluster=h200",), "calibration was fitted on cluster.gpu h100_sxm, the run has h200_sxm"),
        (("engine=vllm_0_19",), "calibration was fitted on engine vLLM 0.10, the run has vLLM 0.19"),
        (("cost.kernel_factor=1.1",), "cost.kernel_factor has no effect beside calibration"),
    ],
)
def test_another_deployment_is_refused(written, overrides, message):
    with pytest.raises(ValueError, match=message):
        compose(*SERVED, f"calibration={written}", *overrides)


def test_a_missing_file_is_refused():
    with pytest.raises(ValueError, match="calibration must name a file that moesd-sim calibrate run"):
        compose(*SERVED, "calibration=nowhere.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name what to calibrate from: run=bench.json"),
        (("run=nowhere.json",), "nowhere.json"),
        (("run=x.json", "frobnicate"), "words must be run=, fit=, metrics=, out= or overrides, got 'frobnicate'"),
        (("fit=two", "run={bench}"), "fit must be a whole number, got 'two'"),
        (("metrics=speed", "run={bench}", *SERVED), "metrics must be among"),
    ],
)
def test_bad_words_end_with_one_line(bench, capsys, words, message):
    assert main([word.format(bench=bench / "rate2.json") for word in words], compose) == 2
    assert message in capsys.readouterr().err
