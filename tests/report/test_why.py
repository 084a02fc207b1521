"""The figures of the waterfall and of the activated experts."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from sim import theory
from sim.report.activation import activation_figure, steps_by_tokens
from sim.report.runs import runs_of
from sim.report.why import why_figure, why_table
from sim.waterfall import BARS
from tests.report.deployments import pairs


def test_bars_hang_together_from_the_ideal_to_the_achieved_speedup():
    runs = runs_of(pairs())
    figure = why_figure(runs)
    assert [trace["meta"] for trace in figure["data"]] == [1, 3]
    for trace in figure["data"]:
        run = runs[trace["meta"]]
        assert trace["x"] == ["ideal", *BARS, "achieved"]
        assert 2 ** trace["y"][0] == pytest.approx(run.result.experiment.drafts + 1, rel=1e-4)
        assert 2 ** trace["y"][-1] == pytest.approx(run.speedup, rel=1e-4)
        ends = [base + height for base, height in zip(trace["base"], trace["y"], strict=True)]
        for end, base in pairwise([*zip(ends[:-1], trace["base"][:-1], strict=True)]):
            assert base[1] == pytest.approx(end[0], abs=1e-5)
        assert ends[-2] == pytest.approx(ends[-1], abs=1e-5)


def test_the_scale_is_in_factors():
    scale = why_figure(runs_of(pairs()))["layout"]["yaxis"]
    assert [f"{2**value:.3g}×" for value in scale["tickvals"]] == scale["ticktext"]
    assert math.log2(1.0) in scale["tickvals"]


def test_the_table_has_a_row_per_run_and_is_left_out_without_sd():
    runs = runs_of(pairs())
    table = why_table(runs)
    assert table.count('<th scope="row"') == len(runs)
    assert all(name in table for name in BARS)
    assert why_table(runs_of(pairs()[:1])) == ""
    assert why_figure(runs_of(pairs()[:1]))["data"] == []


def test_markers_lie_on_eq_8_and_share_the_time():
    runs = runs_of(pairs())
    figure = activation_figure(runs)
    assert [trace.get("meta") for trace in figure["data"]] == [None, 0, 1], (
        "one line for the model, markers for its runs"
    )
    for run in runs[:2]:
        tokens, experts, share = steps_by_tokens(run)
        assert share.sum() == pytest.approx(1.0)
        assert experts == pytest.approx(theory.activated_experts(tokens, 64, 8), rel=0.02), "uniform routing"
    assert activation_figure(runs[2:])["data"] == []
