"""What is wrong with an override is said in one line, whoever composes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sim import compose, simulate
from sim.catalogue import load_model
from sim.compare.command import main as compare
from sim.compare.vllm_bench_writer import write_vllm_bench


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("workload.rate_per_s=abc", "Value 'abc' of type 'str' could not be converted to Float"),
        ("failures.mean_up_s=3", "no effect with failures=off; choose failures= one of planned, random"),
        ("cluster=null", "cluster must be one of a100, .*, got null"),
        ("++a.b=c", "a must be one of models, model, "),
        ("+workload.speed=3", "no attribute 'speed'; moesd-sim --cfg job lists every field"),
        ("workload.speed=3", "Key 'speed' not in 'Synthetic'; moesd-sim --cfg job lists every field"),
        ("router=nope", "in 'router': least_requests least_tokens power_of_two"),
        ("cluster.gpu_overrides.l2_bytes=3", r"use \+cluster.gpu_overrides.l2_bytes=3"),
        ("models=[qwen3_8b,qwen3_8b]", "models must differ in their names, got Qwen3-8B 2 times"),
    ],
)
def test_compose_refuses_in_one_line(override, words):
    with pytest.raises(ValueError, match=words) as caught:
        compose(override)
    assert "\n" not in str(caught.value)


def test_a_config_json_in_the_working_folder_takes_the_folders_name(root, tmp_path, monkeypatch):
    source = root / "conf" / "model" / "config_json" / "qwen3_8b.json"
    (tmp_path / "my_model").mkdir()
    content = {key: value for key, value in json.loads(source.read_text()).items() if key != "_name_or_path"}
    (tmp_path / "my_model" / "config.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path / "my_model")
    assert load_model("config.json", "models").name == "my_model"


def test_a_file_that_cannot_be_read_or_written_ends_compare_with_one_line(tmp_path):
    served = (
        "model=llama32_1b",
        "cluster=h100",
        "speculation=off",
        "workload=poisson_fixed",
        "workload.num_requests=3",
    )
    with pytest.raises(SystemExit, match=r"moesd-sim compare: absent\.json: must be the result file of a benchmark"):
        compare(["absent.json", *served], compose)
    measured = tmp_path / "run.json"
    write_vllm_bench(simulate(compose(*served)[0]), measured)
    with pytest.raises(SystemExit, match=r"moesd-sim compare: .*missing"):
        compare([str(measured), *served, "--json", str(tmp_path / "missing" / "out.json")], compose)


def test_profile_without_torch_says_what_to_install(root, tmp_path):
    start = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['moesd-sim', 'profile', '--help']; import sim.cli as c"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{start}; c.main()"],
        cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "moesd-sim profile: needs torch, which is not installed: pip install '.[profile]'\n"
