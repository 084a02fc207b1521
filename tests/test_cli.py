"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest


def moesd_sim(*arguments, cwd, root):
    return subprocess.run(
        [sys.executable, "-m", "sim", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(root), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


SMALL = ("workload.num_requests=20", "workload.rate_per_s=10")


@pytest.fixture(scope="module")
def main_job(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = moesd_sim(*SMALL, f"hydra.run.dir={folder / 'out'}", cwd=folder, root=root)
    assert done.returncode == 0, done.stderr
    return done, folder / "out"


def test_main_job_compares_moe_and_dense_with_and_without_sd(main_job):
    done, out = main_job
    runs = json.loads((out / "summary.json").read_text())["runs"]
    assert list(runs) == ["Qwen2-57B-A14B, no SD", "Qwen2-57B-A14B, SD 3", "Qwen3-32B, no SD", "Qwen3-32B, SD 3"]
    for label, run in runs.items():
        assert run["requests"] == 20
        assert ("speedup" in run) == label.endswith("SD 3")
        assert sum(run["phase_share"].values()) == pytest.approx(1.0)
    assert done.stdout.rstrip().endswith(str(out))
    assert "speedup by SD" in done.stdout


def test_main_job_writes_its_files(main_job):
    _, out = main_job
    files = {path.name for path in out.iterdir() if path.is_file() and not path.name.startswith(".")}
    assert {"summary.json", "requests.parquet", "steps.parquet", "config.yaml", "report.html"} <= files
    requests, steps = pd.read_parquet(out / "requests.parquet"), pd.read_parquet(out / "steps.parquet")
    assert len(requests) == 80
    assert requests["run"].nunique() == steps["run"].nunique() == 4
    for _, runs in requests.groupby("request"):
        assert runs["prompt_tokens"].nunique() == runs["arrival_s"].nunique() == 1


def test_same_seed_same_bytes(main_job, root, tmp_path):
    _, out = main_job
    again = moesd_sim(*SMALL, f"hydra.run.dir={tmp_path / 'out'}", cwd=tmp_path, root=root)
    assert again.returncode == 0
    for name in ("summary.json", "requests.parquet", "steps.parquet", "config.yaml", "report.html"):
        assert (out / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_help_lists_every_group_and_imports_nothing_slow(root):
    code = "import sys, sim.cli; sys.argv[1:] = ['--help']; sim.cli.main(); print('modules', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in done.stdout.rpartition("modules ")[2].split()}
    assert not imported & {"hydra", "numpy", "omegaconf", "pandas", "plotly", "pyarrow", "rich", "scipy", "simpy"}
    for word in ("moesd-sim", "model:", "cluster:", "workload:", "speculation/acceptance:", "qwen2_57b_a14b"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], ["unknown word 'frobnicate'", "run"]),
        (["speculation.acceptance.rate=1.7"], ["speculation.acceptance.rate must lie in [0, 1], got 1.7"]),
        (["model=gpt_5"], ["gpt_5", "qwen3_8b"]),
        (["models=[]"], ["models must name at least one target"]),
        (["models=[nowhere.json]"], ["nowhere.json", "no such file"]),
        (["workload.speed=3"], ["workload.speed"]),
        (["scheduler.max_seqs=4096"], ["scheduler.max_batched_tokens must be >= max_seqs x verify width"]),
        (["workload=azure_conversation", "workload.path=none.csv"], ["none.csv"]),
        (["seed=-1"], ["seed must lie in"]),
        (["cluster.gpu=h900"], ["cluster.gpu must be one of", "h900"]),
        (["routing=histogram"], ["routing.counts must be given"]),
        (["cost=fitted", "cost.path=none.yaml"], ["cost.path: no calibration none.yaml"]),
    ],
)
def test_errors_say_what_to_do(arguments, words, root, tmp_path):
    done = moesd_sim(*arguments, cwd=tmp_path, root=root)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr, done.stderr[-2000:]
    assert not list(tmp_path.rglob("summary.json"))


def test_infeasible_is_a_finding_not_a_crash(root, tmp_path):
    done = moesd_sim("model=llama31_70b", "cluster=h100", *SMALL, cwd=tmp_path, root=root)
    assert done.returncode == 0, done.stderr
    assert "cannot run" in done.stdout
    summary = json.loads(next(tmp_path.rglob("summary.json")).read_text())
    assert list(summary["infeasible"]) == ["Llama-3.1-70B, no SD", "Llama-3.1-70B, SD 3"]
    assert summary["runs"] == {}


def test_a_config_json_runs(root, tmp_path):
    config = root / "conf" / "model" / "config_json" / "qwen3_8b.json"
    done = moesd_sim(f"models=[{config}]", "speculation=off", "cluster=h100", *SMALL, cwd=tmp_path, root=root)
    assert done.returncode == 0, done.stderr


def test_sweep_runs_every_point(root, tmp_path):
    done = moesd_sim(
        "-m", "model=qwen3_8b", "cluster=h100", "speculation.length.drafts=1,3", *SMALL,
        f"hydra.sweep.dir={tmp_path / 'sweep'}", cwd=tmp_path, root=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = sorted(json.loads(path.read_text())["runs"].keys() for path in (tmp_path / "sweep").rglob("summary.json"))
    assert [list(keys)[-1] for keys in found] == ["Qwen3-8B, SD 1", "Qwen3-8B, SD 3"]


def test_what_if_sparser_and_faster(root, tmp_path):
    done = moesd_sim(
        "model=qwen3_30b_a3b", "sparsity.experts_per_token=2", "cluster=h200", "speculation=off",
        "+cluster.gpu_overrides.memory_bandwidth_bytes_per_s=9.6e12", *SMALL, cwd=tmp_path, root=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = next(iter(json.loads(next(tmp_path.rglob("summary.json")).read_text())["runs"].values()))
    assert run["activated_experts"] < 40
