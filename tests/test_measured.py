"""Files of benchmark tools, written here by hand in their formats: what is read, and what is refused."""

from __future__ import annotations

import copy
import gzip
import json

import numpy as np
import pytest

from sim.compare import read_measured

VLLM = {
    "backend": "vllm",
    "model_id": "some/model",
    "num_prompts": 4,
    "request_rate": 2.0,
    "max_concurrency": None,
    "duration": 3.0,
    "completed": 3,
    "failed": 1,
    "request_throughput": 1.0,
    "output_throughput": 3.0,
    "total_token_throughput": 20.0,
    "input_lens": [10, 20, 30, 40],
    "output_lens": [3, 0, 1, 2],
    "ttfts": [0.5, 0.0, 0.25, 0.125],
    "itls": [[0.1, 0.3], [], [], [0.05]],
    "start_times": [101.0, 100.0, 103.0, 100.5],
    "generated_texts": ["", "", "", ""],
    "errors": ["", "connection reset", "", ""],
    "mean_ttft_ms": 291.0,
}
LISTS = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors")


def written(tmp_path, *documents, name="run.json"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(document) for document in documents))
    return str(path)


def changed(document, **changes):
    return {key: value for key, value in (copy.deepcopy(document) | changes).items() if value is not KeyError}


def test_vllm_requests_come_in_order_of_arrival_without_the_failed(tmp_path):
    measured = read_measured(written(tmp_path, VLLM))
    columns = measured.columns
    assert columns.arrival_s.tolist() == [0.0, 0.5, 2.5]
    assert columns.prompt_tokens.tolist() == [40, 10, 30]
    assert columns.output_tokens.tolist() == [2, 3, 1]
    assert columns.ttft_s.tolist() == [0.125, 0.5, 0.25]
    assert columns.e2e_s == pytest.approx([0.175, 0.9, 0.25])
    assert [gaps.tolist() for gaps in columns.itl_s] == [[0.05], [0.1, 0.3], []]
    assert measured.dropped == (("failed in the benchmark", 1),)
    assert measured.side == "client"
    assert measured.model == "some/model"


def test_vllm_statistics_are_those_of_the_columns(tmp_path):
    figures = read_measured(written(tmp_path, VLLM)).statistics()
    assert figures["ttft_s"]["mean"] == pytest.approx(np.mean([0.5, 0.25, 0.125]))
    assert figures["tpot_s"]["mean"] == pytest.approx(np.mean([0.4 / 2, 0.05]))
    assert figures["itl_s"]["mean"] == pytest.approx(0.15)
    assert figures["throughput"]["requests_per_s"] == pytest.approx(3 / 2.75)
    assert figures["throughput"]["total_tokens_per_s"] == pytest.approx(86 / 2.75)


def test_vllm_stream_is_the_workload(tmp_path):
    path = written(tmp_path, VLLM)
    requests = read_measured(path).requests()
    assert requests.arrival_s.tolist() == [0.0, 0.5, 2.5]
    assert requests.source == path
    assert requests.dropped == (("failed in the benchmark", 1),)
    assert requests.concurrency == 0


def test_vllm_latencies_win_over_the_sum_of_gaps(tmp_path):
    columns = read_measured(written(tmp_path, changed(VLLM, latencies=[1.0, 0.0, 0.5, 0.25]))).columns
    assert columns.e2e_s.tolist() == [0.25, 1.0, 0.5]


def test_vllm_closed_loop(tmp_path):
    requests = read_measured(written(tmp_path, changed(VLLM, request_rate="inf", max_concurrency=2))).requests()
    assert requests.concurrency == 2
    assert not requests.arrival_s.any()


def test_vllm_without_start_times(tmp_path):
    paced = read_measured(written(tmp_path, changed(VLLM, start_times=KeyError)))
    assert paced.requests() is None
    assert "throughput" in paced.statistics()
    at_once = read_measured(written(tmp_path, changed(VLLM, start_times=KeyError, request_rate="inf")))
    assert not at_once.requests().arrival_s.any()


def test_vllm_without_details_has_statistics_only(tmp_path):
    measured = read_measured(written(tmp_path, changed(VLLM, **dict.fromkeys(LISTS, KeyError))))
    assert measured.columns is None
    assert measured.requests() is None
    assert measured.statistics()["ttft_s"] == {"mean": pytest.approx(0.291)}
    assert measured.statistics()["throughput"]["output_tokens_per_s"] == 3.0
    assert measured.dropped == (("failed in the benchmark", 1),)


def test_appended_results_are_chosen_by_number(tmp_path):
    path = written(tmp_path, VLLM, changed(VLLM, model_id="second"))
    assert read_measured(f"{path}#2").model == "second"
    with pytest.raises(ValueError, match="holds 2 runs; choose one as"):
        read_measured(path)
    with pytest.raises(ValueError, match="must lie in 1 to 2, got '3'"):
        read_measured(f"{path}#3")


def test_gzip_is_read_too(tmp_path):
    path = tmp_path / "run.json.gz"
    path.write_bytes(gzip.compress(json.dumps(VLLM).encode()))
    assert len(read_measured(str(path)).columns) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_lens": KeyError}, "input_lens is missing"),
        ({"itls": KeyError}, "itls is missing"),
        ({"ttfts": [0.5, 0.1]}, "must have 2 entries like the other lists, got 4"),
        ({"start_times": [1.0, 2.0]}, "start_times must have 4 entries"),
        ({"ttfts": [-0.5, 0.0, 0.25, 0.125]}, r"ttfts\[0\] must be a finite number >= 0, got -0.5"),
        ({"ttfts": [0.5, 0.0, float("nan"), 0.125]}, r"ttfts\[2\] must be a finite number"),
        ({"itls": [[0.1, -0.3], [], [], [0.05]]}, r"request 0: itls\[1\] must be a finite number >= 0"),
        ({"itls": [0.1, [], [], []]}, "request 0: itls must be a list"),
        ({"output_lens": [3, 0, 1, 2.5]}, r"output_lens\[3\] must be a whole number"),
        ({"input_lens": [10, 20, True, 40]}, r"input_lens\[2\] must be a whole number"),
        ({"input_lens": [0, 20, 30, 40]}, "prompt_tokens must be >= 1, got 0"),
        ({"ttfts": [0.5, 0.0, 0.0, 0.125]}, "ttft_s must be > 0; was the answer streamed"),
        ({"latencies": [0.1, 0.0, 0.25, 0.25]}, "e2e_s must be >= ttft_s"),
        ({"errors": ["x"] * 4, **dict.fromkeys(("mean_ttft_ms", "request_throughput"), 0.0)}, None),
        ({"completed": KeyError}, "must come from vllm bench serve"),
        ({"request_throughput": "fast"}, "request_throughput must be a finite number"),
    ],
)
def test_bad_vllm_files_are_refused_by_file_and_key(tmp_path, changes, message):
    path = written(tmp_path, changed(VLLM, **changes))
    if message is None:
        assert read_measured(path).columns is None
        return
    with pytest.raises(ValueError, match=message) as refused:
        read_measured(path)
    assert path in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("  \n ", "holds no run"),
        ("{", "not JSON"),
        ("[1, 2]", "must be an object"),
        ("{}", "must come from"),
        ('{"benchmarks": []}', "holds no run"),
        ('{"benchmarks": [3]}', r"benchmarks\[0\] must be an object"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, text, message):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_measured(str(path))


def test_a_missing_file_is_refused():
    with pytest.raises(ValueError, match="nowhere"):
        read_measured("nowhere.json")


def guidellm_request(start, **changes):
    request = {
        "request_start_time": start,
        "request_latency": 1.5,
        "prompt_tokens": 12,
        "output_tokens": 11,
        "time_to_first_token_ms": 500.0,
        "time_per_output_token_ms": 136.4,
        "inter_token_latency_ms": 100.0,
    }
    return changed(request, **changes)


def guidellm(requests):
    return {"metadata": {}, "benchmarks": [{"requests": requests}]}


def test_guidellm(tmp_path):
    requests = {
        "successful": [
            guidellm_request(1_700_000_002.0),
            guidellm_request(1_700_000_000.0, output_tokens=1, request_latency=0.5),
            guidellm_request(1_700_000_001.0, time_to_first_token_ms=None),
        ],
        "errored": [{"request_id": "x"}],
        "incomplete": [],
    }
    measured = read_measured(written(tmp_path, guidellm(requests)))
    assert measured.tool == "GuideLLM"
    assert measured.columns.arrival_s.tolist() == [0.0, 2.0]
    assert measured.columns.ttft_s.tolist() == [0.5, 0.5]
    assert measured.statistics()["tpot_s"]["mean"] == pytest.approx(0.1)
    assert dict(measured.dropped) == {"errored in the benchmark": 1, "without a time to first token": 1}


def test_guidellm_of_older_versions_names_the_start_differently(tmp_path):
    old = [guidellm_request(0.0, request_start_time=KeyError, start_time=at) for at in (5.0, 4.0)]
    assert read_measured(written(tmp_path, guidellm({"successful": old}))).columns.arrival_s.tolist() == [0.0, 1.0]


def test_guidellm_statistics_stand_in_for_requests(tmp_path):
    spread = {"mean": 200.0, "percentiles": {"p50": 150.0, "p90": 300.0, "p99": 900.0}}
    metrics = {"time_to_first_token_ms": {"successful": spread}, "requests_per_second": {"successful": {"mean": 4.0}}}
    measured = read_measured(written(tmp_path, {"benchmarks": [{"metrics": metrics}]}))
    assert measured.statistics()["ttft_s"] == {
        "mean": pytest.approx(0.2), "p50": pytest.approx(0.15), "p90": pytest.approx(0.3), "p99": pytest.approx(0.9)
    }  # fmt: skip
    assert measured.statistics()["throughput"] == {"requests_per_s": 4.0}


def test_guidellm_bad_request_is_named(tmp_path):
    path = written(tmp_path, guidellm({"successful": [guidellm_request(0.0, request_latency=-1.0)]}))
    with pytest.raises(ValueError, match=r"successful\[0\]: request_latency must be a finite number >= 0"):
        read_measured(path)


def test_genai_perf_reads_units_and_calls_their_gap_tpot(tmp_path):
    document = {
        "request_throughput": {"unit": "requests/sec", "avg": 2.5},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 300.0},
        "request_latency": {"unit": "s", "avg": 2.0, "p50": 1.5, "p90": 3.0, "p99": 4.0},
        "time_to_first_token": {"unit": "ms", "avg": 40.0, "p50": 30.0},
        "inter_token_latency": {"unit": "us", "avg": 9000.0},
        "error_request_count": {"unit": "requests", "avg": 2},
    }
    measured = read_measured(written(tmp_path, document))
    figures = measured.statistics()
    assert figures["ttft_s"] == {"mean": pytest.approx(0.04), "p50": pytest.approx(0.03)}
    assert figures["tpot_s"] == {"mean": pytest.approx(0.009)}
    assert figures["e2e_s"]["p99"] == 4.0
    assert figures["throughput"] == {"requests_per_s": 2.5, "output_tokens_per_s": 300.0}
    assert measured.dropped == (("failed in the benchmark", 2),)
    document["time_to_first_token"]["unit"] = "fortnights"
    with pytest.raises(ValueError, match="time_to_first_token: unit must be one of"):
        read_measured(written(tmp_path, document))
