"""Studies: what their table holds, what the bundled ones show, what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from sim import compose, theory
from sim.study.command import main, run
from sim.study.page import figure
from sim.study.peaks import peaks
from sim.study.settings import MODES, Panel, Study, overrides_of, read_study, study_names
from sim.study.table import batched, rows

BASE = ["model=qwen2_57b_a14b", "cluster=a800_x2", "speculation=draft_model"]


def small(**changes):
    settings = {
        "title": "a study",
        "shows": "something",
        "base": BASE,
        "axes": {"gamma": {"2": ["speculation.length.drafts=2"], "4": ["speculation.length.drafts=4"]}},
        "batches": [1, 8, 32],
        "panels": [
            Panel(title="Speedup", y="speedup", band=True),
            Panel(title="Peak", y="speedup", x="gamma", peak=True),
        ],
    }
    return Study(**settings | changes)


def table_of(study, mode="static"):
    return rows(study, mode, lambda case: compose(*overrides_of(mode, case, [])))


@pytest.mark.parametrize("name", study_names())
def test_every_bundled_study_composes_and_its_panels_are_drawn(name):
    study = read_study(name, without_simulation=True)
    short = replace(study, batches=study.batches[:2])
    table = table_of(
        replace(short, axes={axis: dict(list(v.items())[:1]) for axis, v in study.axes.items()}, panels=[])
    )
    assert len(table) == 2
    every = [{**row, **values} for values, _ in study.cases() for row in table]
    for panel in study.panels:
        panel.at = [row["batch"] for row in table] if panel.at else []
        assert figure(study, panel, every)["data"], panel.title


def test_columns_are_those_of_the_paper():
    table = table_of(small())
    assert [(row["gamma"], row["batch"]) for row in table] == [(g, b) for g in ("2", "4") for b in (1, 8, 32)]
    for row in table:
        assert row["experts_plain"] == pytest.approx(theory.activated_experts(row["batch"], 64, 8))
        assert row["experts_verify"] == pytest.approx(theory.activated_experts(row["batch"] * row["width"], 64, 8))
        assert row["tokens_per_expert"] == pytest.approx(theory.tokens_per_expert(row["batch"], 8 / 64))
        assert row["full_activation_tokens"] == 23
        assert row["target_efficiency"] == pytest.approx(1 / row["verify_term"])
        assert row["speedup"] == pytest.approx(row["tokens_per_round"] * row["plain_step_s"] / row["round_s"])
        # Eq. 4 knows no host time; the rounds of this preset have more of it than its plain steps.
        assert row["speedup"] < row["tokens_per_round"] / sum(row[f"{t}_term"] for t in ("draft", "verify", "reject"))


@pytest.mark.parametrize("mode", MODES)
def test_simulated_batches_come_close_to_priced_ones(mode):
    """Same prices; what differs is which requests are still there, and in a closed loop the prompts."""
    table = [row for row in table_of(small(simulated=[8, 32]), mode) if row["simulated_speedup"] is not None]
    assert len(table) == 4
    for row in table:
        assert row["simulated_speedup"] == pytest.approx(row["speedup"], rel=0.05 if mode == "static" else 0.3)


def test_a_static_batch_is_whole_batches_of_one_size():
    experiment = compose(*BASE)[-1]
    for batch in (1, 10, 200):
        static = batched(experiment, small(), "static", batch)
        assert static.workload.num_requests % batch == 0
        assert static.scheduler.max_seqs == batch
        served = batched(experiment, small(), "served", batch)
        assert served.workload.concurrency == batch
        assert served.scheduler == experiment.scheduler


def test_peaks_and_the_band_around_them():
    curve = {1: 0.9, 2: 1.5, 4: 2.0, 8: 1.45, 16: 1.3, 32: 0.8}
    table = [{"K": "8", "batch": b, "speedup": s, "target_efficiency": s / 4} for b, s in curve.items()]
    (found,) = peaks(table, ["K"])
    assert (found["peak_batch"], found["peak_speedup"], found["target_efficiency_at_peak"]) == (4, 2.0, 0.5)
    assert (found["band_first_batch"], found["band_last_batch"], found["crossover_batch"]) == (2, 8, 32)


def test_a_run_writes_its_table_and_page(tmp_path):
    folder = run("small", small(), "static", ["seed=3"], compose, tmp_path / "small")
    csv, parquet = pd.read_csv(folder / "table.csv"), pd.read_parquet(folder / "table.parquet")
    assert len(csv) == len(parquet) == 6
    content = json.loads((folder / "summary.json").read_text())
    assert content["overrides"] == ["seed=3"]
    assert [case["gamma"] for case in content["cases"]] == ["2", "4"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Predicted, not measured." in page
    again = run("small", small(), "static", ["seed=3"], compose, tmp_path / "again")
    assert (again / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_the_word_lists_studies_and_names_what_is_unknown(capsys):
    assert main([], compose) == 0
    assert "moesd_sparsity: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"study must be one of moesd_acceptance, .*, got 'moesd'"):
        main(["moesd"], compose)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {}}, "study.axes must hold at least one axis"),
        ({"batches": [4, 2]}, r"study.batches must be >= 1 and grow, got \[4, 2\]"),
        ({"simulated": [5]}, r"study.simulated must be among study.batches, got \[5\]"),
        ({"output_tokens": 1}, "study.output_tokens must be >= 2, got 1"),
        ({"panels": [Panel(title="x", y="speedup", where={"K": ["1"]})]}, "names K"),
    ],
)
def test_what_makes_no_study_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_a_case_without_speculation_is_refused():
    with pytest.raises(ValueError, match="every case of a study needs speculation"):
        table_of(small(axes={"sd": {"off": ["speculation=off"]}}))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be one of static, served, got 'offline'"):
        overrides_of("offline", [], [])
