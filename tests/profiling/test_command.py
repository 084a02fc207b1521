"""The command line from end to end on a CPU: every campaign, resuming, memory, interruption, bare machines."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.calibration.trace import read_table
from sim.profiling import workbench
from sim.profiling.command import main

Rows = list[dict[str, object]]


@pytest.fixture
def profile(moe_json: Path, dense_json: Path, tmp_path: Path):
    """Runs the command on the tiny pair; gives its exit code and the rows it left."""

    def run(campaign: str, *more: str) -> tuple[int, Rows]:
        out = tmp_path / "trace.parquet"
        about = ["--model", str(moe_json), "--draft", str(dense_json), "--device", "cpu", "--quick", "--repeats", "3"]
        code = main([*about, "--campaign", campaign, "--out", str(out), *more])
        return code, read_table(out).to_pylist() if out.exists() else []

    return run


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_campaign_runs_to_its_end(profile, dtype: str) -> None:
    code, rows = profile("all", "--dtype", dtype)
    assert code == 0
    assert {row["status"] for row in rows} == {"ok"}
    expected = {"gemm", "experts", "attention_prefill", "attention_decode", "norm", "rope", "embedding", "lm_head"}
    assert {row["op"] for row in rows} == expected | {"sampling", "rejection", "target_step", "draft_step", "sd_round"}
    assert all(0 < row["latency_s"] < 10 and row["samples"] == 3 for row in rows)
    assert all((row["gpu"], row["engine"], row["dtype"]) == ("cpu", "torch", dtype) for row in rows)
    phases = {row["layer"] for row in rows if row["op"] == "sd_round"}
    assert phases == {"draft", "verify", "rejection", "round"}
    hit = [row["distinct_experts"] for row in rows if row["op"] == "target_step" and row["batch"] * row["width"] == 1]
    assert hit == [4.0]


def test_the_rows_are_usable_for_calibration(profile, tmp_path: Path) -> None:
    """Under a GPU's name, so that nothing but the rows themselves is judged."""
    from sim.calibration.checks import read

    profile("gemm,experts,verify_attention,sd_round,target_step", "--gpu", "h200_sxm")
    assert len(read(tmp_path / "trace.parquet")) > 30


def test_collectives_run_between_processes(profile) -> None:
    code, rows = profile("collectives", "--tensor-parallel", "2")
    assert code == 0
    assert {(row["op"], row["gpus"], row["status"]) for row in rows} == {
        ("all_reduce", 2, "ok"),
        ("all_gather", 2, "ok"),
    }


def test_what_is_in_the_file_is_not_timed_again(profile, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    _, first = profile("gemm,sampling,sd_round")
    timed = []
    monkeypatch.setattr(workbench.Workbench, "prepare", lambda _, case: timed.append(case))
    code, second = profile("gemm,sampling,sd_round")
    assert (code, timed, second) == (0, [], first)
    assert "known" in capsys.readouterr().out


def test_a_campaign_goes_on_where_another_ended(profile) -> None:
    _, decode = profile("attention_decode")
    _, both = profile("attention_decode,verify_attention")
    keys = [(row["batch"], row["width"], row["context_tokens"]) for row in both]
    assert len(set(keys)) == len(keys) > len(decode)
    assert both[: len(decode)] == decode


def test_a_case_that_does_not_fit_is_recorded_and_the_others_run(profile, monkeypatch: pytest.MonkeyPatch) -> None:
    built = workbench.build

    def too_large(case, place):
        if case.integer("m") > 16:
            raise torch.OutOfMemoryError("out of memory")
        return built(case, place)

    monkeypatch.setattr(workbench, "build", too_large)
    code, rows = profile("gemm")
    assert code == 0
    assert {row["status"] for row in rows if row["m"] <= 16} == {"ok"}
    too_big = [row for row in rows if row["m"] > 16]
    assert too_big
    assert all(row["status"] == "out_of_memory" and row["latency_s"] is None for row in too_big)
    monkeypatch.undo()
    _, again = profile("gemm")
    assert again == rows  # not tried again


def test_a_case_that_failed_is_tried_again_on_request(profile, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def broken(case, place):
        raise RuntimeError("no kernel image is available")

    with monkeypatch.context() as patch:
        patch.setattr(workbench, "build", broken)
        _, rows = profile("lm_head")
    assert {row["status"] for row in rows} == {"failed"}
    assert "no kernel image is available" in capsys.readouterr().err
    assert profile("lm_head") == (0, rows)
    _, rows = profile("lm_head", "--retry-failed")
    assert [row["status"] for row in rows].count("ok") == len(rows) / 2


def test_an_error_that_loses_the_gpu_ends_the_run(profile, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Every later case would fail as well, and would stand in the file as failed for no fault of its own."""

    def lost(case, place):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(workbench, "build", lost)
    assert profile("lm_head") == (1, [])
    assert "illegal memory access" in capsys.readouterr().err


def test_an_interrupt_keeps_what_was_timed(profile, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    built, seen = workbench.build, []

    def interrupted(case, place):
        seen.append(case)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return built(case, place)

    with monkeypatch.context() as patch:
        patch.setattr(workbench, "build", interrupted)
        code, rows = profile("gemm")
    assert (code, len(rows)) == (1, 2)
    assert "not finished" in capsys.readouterr().out
    code, rows = profile("gemm")
    assert code == 0 and len(rows) == 9


def test_the_time_limit_ends_a_run_that_can_go_on(profile) -> None:
    code, rows = profile("gemm", "--max-minutes", "1e-9")
    assert (code, rows) == (1, [])


def test_kernels_and_chrome_traces_on_request(profile, tmp_path: Path) -> None:
    _, rows = profile("lm_head", "--kernels", "--chrome-trace", str(tmp_path / "chrome"))
    assert all(str(row["kernels"]).startswith("linear: ") and "aten::linear" in str(row["kernels"]) for row in rows)
    traces = sorted((tmp_path / "chrome").glob("*_lm_head.json"))
    assert len(traces) == len(rows)
    events = json.loads(traces[0].read_text("utf-8"))["traceEvents"]
    assert any(event.get("name") == "aten::linear" for event in events)
    _, again = profile("lm_head")
    assert again == rows  # kernel names do not make another case


def test_a_campaign_without_cases_says_why(profile, capsys) -> None:
    assert profile("target_step,sd_round,experts", "--model", "deepseek_v2_lite", "--list")[0] == 0
    told = capsys.readouterr()
    assert told.err.count("DeepSeek-V2-Lite has mla attention") == 2
    assert "experts tokens=1" in told.out
    assert profile("experts", "--model", "qwen3_0_6b") == (0, [])
    assert "Qwen3-0.6B has no routed experts" in capsys.readouterr().err


def test_fewer_layers_are_said(profile) -> None:
    _, rows = profile("target_step", "--layers", "1")
    assert {row["layers"] for row in rows} == {1}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--dtype", "fp8"), "dtype must be one of"),
        (("--tensor-parallel", "3"), "tensor_parallel must divide the 4 heads"),
        (("--acceptance", "1.5"), r"acceptance must lie in \[0, 1\]"),
        (("--layers", "3"), r"layers must lie in \[0, 2\]"),
        (("--max-minutes", "0"), "max_minutes must be > 0"),
        (("--model", "qwen9"), "model must be one of"),
    ],
)
def test_bad_input_ends_with_its_reason(profile, capsys, more: tuple[str, ...], message: str) -> None:
    code, rows = profile("gemm", *more)
    assert (code, rows) == (2, [])
    assert re.search(message, capsys.readouterr().err)


def test_an_unknown_campaign_lists_the_known_ones(profile, capsys) -> None:
    with pytest.raises(SystemExit):
        profile("gemm,atention")
    assert "unknown atention; known: all, gemm" in capsys.readouterr().err


def test_it_runs_where_only_torch_numpy_pyarrow_and_omegaconf_are(root: Path, moe_json: Path, tmp_path: Path) -> None:
    """As on a bare GPU machine; a catalogue model too, which comes through omegaconf."""
    blocked = ("simpy", "hydra", "pandas", "scipy", "plotly", "rich", "dash", "joblib")
    code = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from sim.profiling.command import main\n"
        f"about = ['--device', 'cpu', '--quick', '--repeats', '3', '--out', {str(tmp_path / 'bare.parquet')!r}]\n"
        f"assert main([*about, '--model', {str(moe_json)!r}, '--campaign', 'gemm,experts,target_step']) == 0\n"
        "assert main([*about, '--model', 'qwen3_0_6b', '--campaign', 'verify_attention']) == 0\n"
    )
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {row["status"] for row in read_table(tmp_path / "bare.parquet").to_pylist()} == {"ok"}


def test_the_documented_commands_have_the_documented_number_of_cases(root: Path, capsys) -> None:
    text = (root / "docs" / "gpu_measurements.md").read_text("utf-8")
    told = {row[0]: int(row[1]) for row in re.findall(r"^\| (\d+) \|.*\| (\d+) \| \d+ \|$", text, re.MULTILINE)}
    counted = dict.fromkeys(told, 0)
    number = ""
    for line in text.splitlines():
        number = line.removeprefix("# ") if re.fullmatch(r"# \d+", line) else number
        if line.startswith("python -m sim.profiling") and number and "--quick" not in line:
            assert main([*line.split()[3:], "--device", "cpu", "--list"]) == 0
            counted[number] += len(capsys.readouterr().out.splitlines())
    assert len(told) == 10
    assert counted == told
