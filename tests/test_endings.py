"""Runs that do not end as planned: routers and failures from the command line, Ctrl-C, deadlock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from sim import Cluster, InfeasibleError, compose, simulate
from sim.data import data_dir, names_in
from sim.job import compare, twins
from sim.result import Interrupted
from sim.serving.ending import DeadlockError
from sim.serving.failures import PlannedFailures
from sim.serving.router import LeastRequests
from sim.table import comparison_table
from tests.deployments import experiment, speculation, workload

FLEET = (
    "model=qwen3_8b", "cluster=h100", "cluster.replicas=3", "speculation=off", "workload=system_prompts",
    "workload.num_sessions=60", "workload.sessions_per_s=60",
)  # fmt: skip
THREE = Cluster(gpu="h200_sxm", replicas=3)


@pytest.mark.parametrize("router", names_in(data_dir("conf") / "router"))
def test_every_router_serves(router):
    (chosen,) = compose(*FLEET, f"router={router}")
    result = simulate(chosen)
    assert result.summary()["finished"] == 60
    assert len(np.unique(result.recorder.replica)) == 3 or router == "prefix_aware"


def test_every_failure_is_counted():
    plain, random, planned = (
        simulate(compose(*FLEET, f"failures={name}", *more)[0])
        for name, more in (
            ("off", ()),
            ("random", ("failures.mean_up_s=1.0", "failures.down_s=0.5", "failures.most_retries=99")),
            ("planned", ("failures.outages_s=[[0,0.8,0.5],[2,1,inf]]", "failures.keep_tokens=false")),
        )
    )
    for result, outages in ((plain, 0), (random, len(random.recorder.outages)), (planned, 2)):
        summary, frame = result.summary(), result.requests_frame()
        assert summary["finished"] == 60
        assert summary["outages"] == outages
        assert summary["retried"] == (frame["retries"] > 0).sum()
        assert summary["wasted_tokens"] == frame["wasted_tokens"].sum()
    assert planned.summary()["retried"] > 0 < planned.summary()["wasted_tokens"]
    last = planned.recorder.blocks()["end"].max() / 1e12
    assert planned.summary()["down_s"] == pytest.approx(0.5 + last - 1.0)


def test_lost_and_cancelled_requests_reach_summary_table_and_report(tmp_path):
    failing = PlannedFailures(outages_s=[[0, 1.0, 5.0]], most_retries=0)
    base = experiment("qwen3_8b", cluster=THREE, workload=workload(90, 60.0), failures=failing)
    comparison = compare(twins(replace(base, speculation=speculation())))
    comparison.save(tmp_path)
    frame = pd.read_parquet(tmp_path / "requests.parquet")
    for label, run in json.loads((tmp_path / "summary.json").read_text())["runs"].items():
        rows = frame[frame["run"] == label]
        assert run["lost"] == rows["lost_s"].notna().sum() > 0
        assert run["finished"] + run["lost"] == 90
        assert not run["partial"]
    assert "lost with a replica" in (tmp_path / "report.html").read_text()
    assert "requests lost" in [
        cell for column in comparison_table(comparison.summaries()).columns for cell in column.cells
    ]


def test_losing_everything_is_infeasible():
    failing = PlannedFailures(outages_s=[[0, 1e-4, 1.0]], most_retries=0)
    batch = replace(workload(4), arrival="batch", rate_per_s=None)
    with pytest.raises(InfeasibleError, match=r"no step was completed before 4 requests were lost.*most_retries"):
        simulate(experiment("qwen3_8b", workload=batch, failures=failing))


def test_settings_without_effect_are_refused():
    with pytest.raises(ValueError, match=r"outages_s must name replicas 0 to 0, got 2"):
        experiment(failures=PlannedFailures(outages_s=[[2, 1.0, 1.0]]))
    (prefix_aware,) = compose(*FLEET, "router=prefix_aware", "scheduler.prefix_caching=false")
    with pytest.raises(ValueError, match=r"scheduler\.prefix_caching=true"):
        simulate(prefix_aware)


def test_a_fleet_that_dies_is_a_deadlock():
    with pytest.raises(DeadlockError, match="no replica is up nor will be, for"):
        simulate(experiment("qwen3_8b", failures=PlannedFailures(outages_s=[[0, 1.0, float("inf")]])))


@dataclass(kw_only=True, slots=True)
class PressesCtrlC(LeastRequests):
    """Interrupts the run while it routes a request."""

    request: int = 40

    def choose(self, arrival, fleet):
        if arrival.number == self.request:
            os.kill(os.getpid(), signal.SIGINT)
        return LeastRequests.choose(self, arrival, fleet)


def test_ctrl_c_ends_a_simulation_with_its_beginning():
    whole = simulate(experiment("qwen3_8b", router=LeastRequests()))
    with pytest.raises(Interrupted) as caught:
        simulate(experiment("qwen3_8b", router=PressesCtrlC()))
    part = caught.value.result
    summary = part.summary()
    assert part.partial and summary["partial"]
    assert summary["open"] + summary["finished"] == 60
    done = np.array(part.recorder.finish) >= 0
    assert 0 < done.sum() < 60
    assert np.array_equal(np.array(part.recorder.finish)[done], np.array(whole.recorder.finish)[done])


def test_ctrl_c_ends_a_comparison_with_what_is_done(tmp_path):
    base = experiment("qwen3_8b", speculation=speculation())
    first, second, third = base, replace(base, router=PressesCtrlC(), speculation=None), experiment("qwen3_30b_a3b")
    comparison = compare([first, second, third])
    assert [result.partial for result in comparison.results] == [False, True]
    assert comparison.not_run == [third.label]
    comparison.save(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["partial"] and written["not_run"] == [third.label]
    assert [run["partial"] for run in written["runs"].values()] == [False, True]
    assert written["runs"][first.label]["speedup"] == {}, "half a run is nothing to compare with"
    assert "was interrupted when" in (tmp_path / "report.html").read_text()


def test_ctrl_c_before_the_first_step_leaves_nothing():
    with pytest.raises(KeyboardInterrupt) as caught:
        simulate(experiment("qwen3_8b", router=PressesCtrlC(request=0)))
    assert not isinstance(caught.value, Interrupted)


def test_ctrl_c_on_the_command_line(root, tmp_path):
    """Interrupted amid its first simulation it writes what is done, and exits as a program that Ctrl-C ended."""
    press = (
        "import os, signal, sim.serving.router as r; choose = r.LeastRequests.choose\n"
        "def press(self, arrival, fleet):\n"
        "    if arrival.number == 30: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return choose(self, arrival, fleet)\n"
        "r.LeastRequests.choose = press; from sim.cli import main; main()"
    )
    small = ("model=qwen3_8b", "cluster=h100", "workload.num_requests=60", f"hydra.run.dir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-c", press, *small],
        env={"PYTHONPATH": str(root), "PATH": "", "COLUMNS": "200"}, cwd=root, check=False,
        capture_output=True, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "(partial)" in done.stdout and "not run: Qwen3-8B, SD 3" in done.stdout
    assert json.loads((tmp_path / "summary.json").read_text())["partial"]
