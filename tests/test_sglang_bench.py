"""SGLang's bench_serving lines, and streams drawn from what a file states."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sim.compare import read_measured
from sim.compare.drawn import drawn_requests

LINE = {
    "backend": "sglang", "dataset_name": "random", "request_rate": 4.0, "max_concurrency": None, "duration": 10.0,
    "completed": 400, "total_input_tokens": 409600, "total_output_tokens": 51200, "request_throughput": 3.9,
    "input_throughput": 4000.0, "output_throughput": 500.0, "total_throughput": 4500.0, "mean_e2e_latency_ms": 1500.0,
    "median_e2e_latency_ms": 1490.0, "p99_e2e_latency_ms": 1900.0, "mean_ttft_ms": 80.0, "median_ttft_ms": 70.0,
    "p99_ttft_ms": 200.0, "mean_tpot_ms": 11.0, "median_tpot_ms": 10.9, "p99_tpot_ms": 12.0, "mean_itl_ms": 11.0,
    "median_itl_ms": 10.8, "p95_itl_ms": 15.0, "p99_itl_ms": 20.0, "concurrency": 5.9, "accept_length": None,
}  # fmt: skip
DETAILS = {
    "input_lens": [100, 200, 300], "output_lens": [3, 2, 4], "ttfts": [0.1, 0.2, 0.1],
    "itls": [[0.01, 0.01], [0.02], [0.01, 0.01, 0.01]], "generated_texts": ["", "", ""], "errors": ["", "", ""],
}  # fmt: skip


def written(tmp_path, *lines):
    path = tmp_path / "online.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_statistics_have_the_names_and_units_of_a_summary(tmp_path):
    found = read_measured(written(tmp_path, LINE))
    assert found.tool == "SGLang bench_serving"
    assert found.stated["e2e_s"] == pytest.approx({"mean": 1.5, "p50": 1.49, "p99": 1.9})
    assert found.stated["throughput"]["total_tokens_per_s"] == 4500.0
    assert found.columns is None


def test_details_are_requests(tmp_path):
    found = read_measured(written(tmp_path, LINE | DETAILS))
    assert found.columns.e2e_s == pytest.approx([0.12, 0.22, 0.13])
    assert found.requests() is None
    drawn = drawn_requests(found, seed=0)
    assert drawn.prompt_tokens.tolist() == [100, 200, 300]
    assert drawn.output_tokens.tolist() == [3, 2, 4]


def test_a_stream_is_drawn_at_the_stated_rate(tmp_path):
    drawn = drawn_requests(read_measured(written(tmp_path, LINE)), seed=0)
    assert len(drawn) == 400
    assert (drawn.prompt_tokens == 1024).all()
    assert (drawn.output_tokens == 128).all()
    gaps = np.diff(drawn.arrival_s)
    assert gaps.mean() == pytest.approx(0.25, rel=0.15)
    assert gaps.std() == pytest.approx(0.25, rel=0.2)
    steady = drawn_requests(read_measured(written(tmp_path, LINE | {"burstiness": 100.0})), seed=0)
    assert np.diff(steady.arrival_s).std() == pytest.approx(0.025, rel=0.2)


def test_an_unpaced_run_is_a_closed_loop(tmp_path):
    lines = (LINE | {"request_rate": float("inf"), "max_concurrency": 16}, LINE)
    found = read_measured(written(tmp_path, *lines) + "#1")
    drawn = drawn_requests(found, seed=0)
    assert drawn.concurrency == found.concurrency == 16
    assert not drawn.arrival_s.any()


def test_a_file_without_a_rate_gives_no_stream(tmp_path):
    line = {key: value for key, value in LINE.items() if key != "request_rate"}
    assert drawn_requests(read_measured(written(tmp_path, line)), seed=0) is None
