"""Bands of a run's figures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sim.bands import run_bands
from sim.cost.pricing import Fitted
from sim.job import compare, twins
from sim.metrics.summary import speedup
from tests.deployments import experiment, speculation, workload

LIGHT = experiment("qwen3_8b", cost=Fitted(), speculation=speculation())
OVERLOADED = replace(LIGHT, workload=workload(num_requests=150, rate_per_s=400.0))


@pytest.fixture(scope="module")
def light():
    return compare(twins(LIGHT), bands=True)


def test_every_band_holds_its_figure(light):
    for summary in light.summaries().values():
        bands = summary["bands"]
        assert bands["level"] == 0.8
        for figure in ("throughput", "ttft_s", "tpot_s", "itl_s", "e2e_s"):
            assert set(bands[figure]) == set(summary[figure])
            for name, (low, high) in bands[figure].items():
                assert low <= summary[figure][name] <= high, (figure, name)


def test_an_idle_server_keeps_its_throughput_and_a_full_one_does_not(light):
    def width(comparison):
        bands = comparison.summaries()["Qwen3-8B, no SD"]["bands"]["throughput"]["output_tokens_per_s"]
        return bands[1] / bands[0] - 1

    assert width(light) < 0.03
    assert width(compare([replace(OVERLOADED, speculation=None)], bands=True)) > 0.08


def test_the_band_of_a_speedup_is_narrower_than_those_it_is_made_of(light):
    summary = light.summaries()["Qwen3-8B, SD 3"]
    low, high = summary["bands"]["speedup"]["tpot"]
    assert low < summary["speedup"]["tpot"] < high
    plain = light.summaries()["Qwen3-8B, no SD"]["bands"]["tpot_s"]["mean"]
    own = summary["bands"]["tpot_s"]["mean"]
    assert high / low < (plain[1] / plain[0]) * (own[1] / own[0])


def test_a_lower_level_makes_a_narrower_band(light):
    plain, fast = light.results
    without, with_sd = run_bands(plain), run_bands(fast)
    values = speedup(plain.summary(), fast.summary())
    assert with_sd.speedup(without, values, level=0.5)["tpot"][1] < with_sd.speedup(without, values)["tpot"][1]


def test_saved_and_drawn(light, tmp_path):
    light.save(tmp_path)
    saved = json.loads((tmp_path / "summary.json").read_text())["runs"]["Qwen3-8B, SD 3"]["bands"]
    assert saved == light.summaries()["Qwen3-8B, SD 3"]["bands"]
    page = (tmp_path / "report.html").read_text()
    assert "each holds its figure with a probability of 80%" in page
    assert "The speedup lies between" in page
    assert '"fill":"toself"' in page


def test_without_bands_nothing_is_said_of_them(tmp_path):
    comparison = compare(twins(LIGHT))
    comparison.save(tmp_path)
    assert all("bands" not in summary for summary in comparison.summaries().values())
    assert "table-bands" not in (tmp_path / "report.html").read_text()
