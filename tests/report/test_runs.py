from __future__ import annotations

import pytest

from sim.report.runs import runs_of
from sim.report.settings import distinguish, settings
from sim.run import simulate
from tests.report.deployments import DENSE, MOE, experiment, pairs


def test_a_run_with_sd_finds_its_twin_and_shares_its_colour():
    plain_moe, moe, plain_dense, dense = runs_of(pairs())
    assert (moe.plain, dense.plain) == (plain_moe.summary, plain_dense.summary)
    assert plain_moe.plain is None
    assert plain_moe.colour == moe.colour != dense.colour == plain_dense.colour
    assert [run.dash for run in (plain_moe, moe)] == ["dash", "solid"]


def test_speedup_is_the_ratio_of_mean_tpots():
    plain, moe = runs_of(pairs())[:2]
    frames = [run.result.requests_frame()["tpot_s"].mean() for run in (plain, moe)]
    assert moe.speedup == pytest.approx(frames[0] / frames[1])
    assert plain.speedup is None


def test_other_settings_make_no_twin():
    plain, other_seed = simulate(experiment(MOE)), simulate(experiment(MOE, drafts=4, seed=1))
    assert runs_of([plain, other_seed])[1].speedup is None
    assert runs_of([pairs()[0], pairs()[3]])[1].speedup is None


def test_draft_lengths_share_a_twin_but_not_a_colour():
    results = [simulate(experiment(MOE, drafts)) for drafts in (0, 2, 4)]
    runs = runs_of(results)
    assert all(run.speedup is not None for run in runs[1:])
    assert runs[0].colour == runs[1].colour != runs[2].colour


def test_labels_are_unique_and_name_what_differs():
    seeds = [simulate(experiment(MOE, seed=seed)) for seed in (3, 4)]
    labels = [run.label for run in runs_of([*seeds, pairs()[2]])]
    assert labels == ["Qwen2-57B-A14B, no SD (seed=3)", "Qwen2-57B-A14B, no SD (seed=4)", "Qwen3-32B, no SD"]
    same = [run.label for run in runs_of([seeds[0], seeds[0]])]
    assert same[0] != same[1]


def test_settings_hold_every_field_and_the_names_of_policies():
    flat = settings(experiment(DENSE, drafts=4))
    assert flat["scheduler"] == "ChunkedPrefill"
    assert flat["scheduler.max_seqs"] == "256"
    assert flat["speculation.length.drafts"] == "4"
    assert flat["model.layers[0].count"] == "64"
    assert settings(experiment(DENSE))["speculation"] == "none"


def test_runs_are_told_apart_by_what_differs():
    assert distinguish([{"a": "1", "b": "x"}, {"a": "1", "b": "y"}]) == ["b=x", "b=y"]
