"""The loops of the silicon table: which rows count, and what is sent."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from sim import Experiment, Requests
from validation import vllm_parallel

COLUMNS = (
    "mode", "backend", "system", "model_path", "tp_size", "attention_dp_size", "moe_ep_size", "isl", "osl",
    "batch_size", "silicon_ttft_ms", "silicon_tpot_ms",
)  # fmt: skip
MINIMAX = ("agg", "vllm", "h100_sxm", "MiniMaxAI/MiniMax-M2.5", "4.0", "1.0", "4.0")


class Half:
    """A run that takes half the recorded times of the first row."""

    def __init__(self, experiment: Experiment, requests: Requests) -> None:
        assert requests.concurrency > 0

    def summary(self) -> dict[str, dict[str, float]]:
        return {"tpot_s": {"mean": 0.005}, "ttft_s": {"mean": 0.02}, "e2e_s": {"mean": 0.5}}


def test_only_the_deployments_rows_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_parallel, "simulate", Half)
    rows = [
        (*MINIMAX, "256", "64", "4.0", "40.0", "10.0"),
        ("agg", "vllm", "h100_sxm", "MiniMaxAI/MiniMax-M2.5", "4.0", "4.0", "16.0", "256", "64", "1.0", "40.0", "10.0"),
        ("agg", "trtllm", "h200_sxm", "deepseek-ai/DeepSeek-R1", "1.0", "8.0", "8.0", "128", "32", "2.0", "90", "30"),
    ]
    path = tmp_path / vllm_parallel.FILE
    path.parent.mkdir()
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    checks = vllm_parallel.checks(tmp_path)
    assert [(check.metric, check.n) for check in checks] == 2 * [
        ("tpot_mean_rel_error", 1), ("e2e_mean_rel_error", 1), ("ttft_mean_rel_error", 1),
    ]  # fmt: skip
    assert "4 clients" in checks[0].note and "16 clients" in checks[3].note
    assert checks[0].value == pytest.approx(0.5)
    assert checks[2].value == pytest.approx(0.5)
    assert checks[0].bar == vllm_parallel.BAR and checks[3].bar is None
    assert vllm_parallel.checks(tmp_path / "nothing") == []


def test_a_loop_keeps_its_clients_busy() -> None:
    case = vllm_parallel.Case(1000, 100, 8, 0.1, 0.02)
    requests = case.requests()
    assert (len(requests), requests.concurrency) == (40, 8)
    assert (requests.prompt_tokens >= 800).all() and (requests.prompt_tokens <= 1000).all()
    assert np.isclose(case.e2e_s, 0.1 + 0.02 * 89)
