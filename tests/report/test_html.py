from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from sim.report import html
from sim.report.figures import all_figures
from sim.report.html import write_report
from sim.report.runs import runs_of
from sim.run import simulate
from tests.report.deployments import DENSE, MOE, experiment, pairs


def own_text(page: str) -> str:
    """The page without plotly's own script."""
    return "".join(
        part for part in re.split(r"(<script.*?</script>)", page, flags=re.DOTALL) if "plotly.js v" not in part
    )


def test_same_results_same_bytes(tmp_path):
    again = [simulate(experiment(model, drafts)) for model in (MOE, DENSE) for drafts in (0, 4)]
    one, two = write_report(pairs(), tmp_path / "one.html"), write_report(again, tmp_path / "two.html")
    assert one.read_bytes() == two.read_bytes()


def test_the_page_needs_nothing_else(tmp_path):
    page = own_text(write_report(pairs(), tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not re.search(r"(src|href)\s*=|url\(|@import", page)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_page_says_that_it_predicts_and_from_what(tmp_path):
    page = write_report(pairs(), tmp_path / "report.html").read_text(encoding="utf-8")
    moe = runs_of(pairs())[1]
    assert "Predicted, not measured." in page
    assert "h200_sxm" in page
    assert f"Qwen2-57B-A14B {moe.speedup:.2f}× faster" in page
    assert f"Acceptance length {moe.acceptance_length:.2f}" in page
    assert "Every request of the workload was served." in page


def test_every_figure_of_the_four_runs_has_points():
    figures = all_figures(runs_of(pairs()))
    assert list(figures) == [
        "ttft",
        "tpot",
        "e2e",
        "throughput",
        "running",
        "waiting",
        "phases",
        "speedup",
        "efficiency",
        "experts",
    ]
    for name, figure in figures.items():
        assert all(len(trace["x"]) == len(trace["y"]) > 0 for trace in figure["data"]), name
    json.dumps(figures, allow_nan=False)


def test_dense_and_moe_share_the_speedup_figure_and_only_moe_has_experts():
    figures = all_figures(runs_of(pairs()))
    assert {trace["meta"] for trace in figures["speedup"]["data"]} == {1, 3}
    assert {trace["meta"] for trace in figures["experts"]["data"]} == {1}


def test_phase_shares_of_every_run_fill_its_bar():
    bars = all_figures(runs_of(pairs()))["phases"]["data"]
    for shares in zip(*(bar["x"] for bar in bars), strict=True):
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("chosen", [[0], [1], [2, 3]])
def test_any_choice_of_runs_makes_a_page(tmp_path, chosen):
    results = [pairs()[i] for i in chosen]
    page = own_text(write_report(results, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert all(run.label in page for run in runs_of(results))
    assert ("No run with SD" in page) == (chosen == [0])


def test_a_result_reports_itself(tmp_path):
    assert pairs()[0].report(tmp_path / "deep" / "report.html").is_file()


def test_requests_of_one_token_have_no_tpot_and_still_a_page(tmp_path):
    base = experiment(MOE, drafts=4)
    output = replace(base.workload.output, kind="fixed", tokens=1, min_tokens=None, max_tokens=None)
    result = simulate(replace(base, workload=replace(base.workload, output=output)))
    page = write_report([result], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no TPOT" in page


def test_dropped_requests_are_listed_by_reason(tmp_path):
    result = pairs()[0]
    fewer = replace(result, requests=replace(result.requests, dropped=(("0 output tokens <b>", 1234),)))
    page = own_text(write_report([fewer], tmp_path / "report.html").read_text(encoding="utf-8"))
    assert '<td>0 output tokens &lt;b&gt;</td><td class="number">1,234</td>' in page


def test_names_cannot_break_out_of_the_page(tmp_path):
    result = pairs()[1]
    hostile = replace(result.experiment.model, name="</script><script>alert(1)</script>")
    changed = replace(result, experiment=replace(result.experiment, model=hostile))
    page = own_text(write_report([changed], tmp_path / "report.html", title="<i>&").read_text(encoding="utf-8"))
    assert "<script>alert" not in page
    assert "<title>&lt;i&gt;&amp;</title>" in page


def test_a_failed_report_leaves_no_file(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(pairs()[:1], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(ValueError, match="results must hold at least one run"):
        html.write_report([], tmp_path / "report.html")
