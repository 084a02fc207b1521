"""Simulated against measured: a prediction is compared with itself, then with what was done to it."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from sim import Cluster, simulate
from sim.application import compose
from sim.compare import Measured, compare, read_measured, to_vllm_bench, write_vllm_bench
from sim.compare.command import chosen, main
from sim.compare.comparison import simulated_columns
from sim.compare.emissions import emission_gaps
from sim.compare.vllm_bench import FIGURES
from sim.metrics.record import NOT_YET
from sim.metrics.summary import Times
from tests.deployments import experiment, speculation, workload

BUSY = experiment("qwen3_8b", workload=workload(num_requests=80, rate_per_s=12.0))
DEPLOYMENTS = {
    "plain": BUSY,
    "SD": replace(BUSY, speculation=speculation()),
    "two replicas": replace(BUSY, cluster=Cluster(gpu="h200_sxm", replicas=2)),
    "blocks only": replace(BUSY, keep_steps=False),
}
PREEMPTING = replace(BUSY, cluster=Cluster(gpu="h200_sxm", kv_blocks=120))

# Of vllm/benchmarks/serve.py, with every statistic asked for and no speculation.
VLLM_KEYS = {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate",
    "burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput", "input_lens",
    "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts", "errors",
    "max_output_tokens_per_s", "max_concurrent_requests", "rtfx",
    *(f"{word}_{figure}_ms" for figure in FIGURES.values() for word in ("mean", "median", "std", "p50", "p90", "p99")),
}  # fmt: skip


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def result(request):
    return simulate(DEPLOYMENTS[request.param])


def again(result, tmp_path):
    """The run written, read, and simulated from what was read."""
    path = tmp_path / "run.json"
    write_vllm_bench(result, path)
    measured = read_measured(str(path))
    return measured, simulate(result.experiment, measured.requests())


def test_the_keys_are_those_of_vllm(result):
    document = to_vllm_bench(result)
    spec = {key for key in document if key.startswith("spec_decode_")}
    assert set(document) - spec == VLLM_KEYS | {"predicted_by"}
    assert bool(spec) == bool(result.experiment.drafts)


def test_emissions_begin_at_the_first_token_and_end_at_the_last(result):
    times, requests = Times.of(result.recorder), result.requests
    gaps, guessed = emission_gaps(result)
    assert guessed == 0
    assert [column.sum() for column in gaps] == pytest.approx(times.finish_s - times.first_token_s, abs=1e-8)
    assert [len(column) for column in gaps] == list(result.recorder.rounds)
    if not result.experiment.drafts:
        assert [len(column) for column in gaps] == (requests.output_tokens - 1).tolist()
    assert all((column > 0).all() for column in gaps)


def test_gaps_have_the_distribution_of_the_summary(result):
    gaps, _ = emission_gaps(result)
    expected = result.summary()["itl_s"]
    assert np.concatenate(gaps).mean() == pytest.approx(expected["mean"], rel=1e-9)


def test_preempted_requests_are_spread_evenly_and_counted():
    result = simulate(PREEMPTING)
    preempted = np.asarray(result.recorder.preemptions) > 0
    assert preempted.any()
    gaps, guessed = emission_gaps(result)
    assert guessed == preempted.sum()
    times = Times.of(result.recorder)
    assert [column.sum() for column in gaps] == pytest.approx(times.finish_s - times.first_token_s, abs=1e-8)
    assert f"gaps of {guessed} preempted requests" in to_vllm_bench(result)["predicted_by"]


def test_a_request_that_did_not_finish_stands_as_a_failed_one(tmp_path):
    result = simulate(BUSY)
    result.recorder.finish[3] = NOT_YET
    document = to_vllm_bench(result)
    assert (document["completed"], document["failed"], document["output_lens"][3]) == (79, 1, 0)
    write_vllm_bench(result, tmp_path / "run.json")
    measured = read_measured(str(tmp_path / "run.json"))
    assert len(measured.columns) == 79
    assert measured.dropped == (("failed in the benchmark", 1),)


def test_peaks_are_those_of_a_sweep_over_the_requests():
    result = simulate(BUSY)
    times, document = Times.of(result.recorder), to_vllm_bench(result)
    at_arrivals = [((times.arrival_s <= t) & (times.finish_s > t)).sum() for t in times.arrival_s]
    assert document["max_concurrent_requests"] == max(at_arrivals)
    assert document["max_output_tokens_per_s"] <= result.requests.output_tokens.sum()


def test_a_prediction_equals_itself(result, tmp_path):
    measured, simulated = again(result, tmp_path)
    comparison = compare(simulated, measured)
    names = {statistic.figure for statistic in comparison.statistics}
    assert names == {"throughput", "ttft_s", "tpot_s", "itl_s", "e2e_s"}
    for statistic in comparison.statistics:
        if statistic.figure != "itl_s":  # whose quantiles are interpolated on one side only
            assert statistic.error == pytest.approx(0.0, abs=1e-6), statistic
    assert measured.side == "engine"
    assert any("a prediction, not a measurement" in note for note in comparison.notes)
    for window in comparison.windows:
        assert window.ttft_share == pytest.approx(0.0, abs=1e-6)
        assert window.simulated_in_flight == pytest.approx(window.measured_in_flight, rel=1e-6, abs=1e-9)


def slower(result, name, rows, factor):
    """The run as measured, but for some requests."""
    columns = simulated_columns(result)
    ttft_s, e2e_s = columns.ttft_s.copy(), columns.e2e_s.copy()
    if name == "ttft":
        e2e_s[rows] += ttft_s[rows] * (factor - 1)
        ttft_s[rows] *= factor
    else:
        e2e_s[rows] += (e2e_s[rows] - ttft_s[rows]) * (factor - 1)
    return Measured(source="made", tool="test", columns=replace(columns, ttft_s=ttft_s, e2e_s=e2e_s))


@pytest.mark.parametrize("name", ["ttft", "tpot"])
def test_windows_find_what_was_slow_and_add_up_to_the_error(name):
    result = simulate(BUSY)
    arrival_s = simulated_columns(result).arrival_s
    rows = (arrival_s > 2.0) & (arrival_s < 3.0)
    measured = slower(result, name, rows, 1.5)
    comparison = compare(simulate(BUSY, measured.requests()), measured)
    error = next(s.error for s in comparison.statistics if (s.figure, s.statistic) == (f"{name}_s", "mean"))
    shares = [getattr(window, f"{name}_share") for window in comparison.windows]
    assert error < 0
    assert sum(shares) == pytest.approx(error, rel=1e-9)
    worst = comparison.worst(name, 1)[0]
    last = 3.0 if name == "ttft" else float((measured.columns.arrival_s + measured.columns.e2e_s)[rows].max())
    assert worst.end_s > 2.0
    assert worst.start_s < last


def test_windows_keep_the_integrals():
    result = simulate(BUSY)
    measured = slower(result, "ttft", np.zeros(80, dtype=bool), 1.0)
    rerun = simulate(BUSY, measured.requests())
    windows = compare(rerun, measured, windows=7).windows
    length = [window.end_s - window.start_s for window in windows]
    times = Times.of(rerun.recorder)

    def total(name):
        return float(np.dot(length, [getattr(window, name) for window in windows]))

    assert len(windows) == 7
    assert total("measured_in_flight") == pytest.approx(measured.columns.e2e_s.sum())
    assert total("running") == pytest.approx((times.finish_s - times.admitted_s).sum(), rel=1e-6)
    assert total("prefill_tokens_per_s") == pytest.approx(rerun.requests.prompt_tokens.sum(), rel=1e-6)
    assert sum(window.arrivals for window in windows) == 80
    assert all(0 <= window.kv_use <= 1 for window in windows)


def test_a_request_left_out_is_left_out_of_both_sides():
    result = simulate(BUSY)
    columns = simulated_columns(result)
    columns.prompt_tokens[5] = BUSY.model.max_context_tokens
    measured = Measured(
        source="made", tool="test", columns=replace(columns, ttft_s=columns.ttft_s + 100.0 * (np.arange(80) == 5))
    )
    comparison = compare(simulate(replace(BUSY, drop_oversized=True), measured.requests()), measured)
    mean = next(s for s in comparison.statistics if (s.figure, s.statistic) == ("ttft_s", "mean"))
    assert mean.measured < 50.0
    assert any("1 requests left out" in note for note in comparison.notes)


def test_statistics_alone_are_compared_without_windows():
    measured = Measured(source="made", tool="test", stated={"ttft_s": {"mean": 0.1}, "tpot_s": {"p50": 0.0}})
    comparison = compare(simulate(BUSY), measured)
    assert [(s.figure, s.statistic) for s in comparison.statistics] == [("ttft_s", "mean"), ("tpot_s", "p50")]
    assert comparison.statistics[1].error is None
    assert comparison.windows == ()
    assert any("the experiment's own" in note for note in comparison.notes)


def test_closed_loop_is_simulated_as_one(tmp_path):
    closed = replace(BUSY, workload=workload(num_requests=40))
    requests = closed.workload.requests(0)
    result = simulate(closed, replace(requests, arrival_s=np.zeros(40), concurrency=4))
    measured, simulated = again(result, tmp_path)
    comparison = compare(simulated, measured)
    assert measured.concurrency == 4
    assert to_vllm_bench(simulated)["max_concurrent_requests"] == 4
    assert max(abs(s.error) for s in comparison.statistics if s.figure == "e2e_s") < 1e-6
    assert any("closed loop of 4" in note for note in comparison.notes)


def test_bounds_of_windows():
    with pytest.raises(ValueError, match="windows must be >= 1, got 0"):
        compare(simulate(BUSY), Measured(source="made", tool="test"), windows=0)


def test_one_model_is_chosen():
    with pytest.raises(ValueError, match="choose by model="):
        chosen([BUSY, experiment("qwen3_14b")])
    assert chosen([BUSY, DEPLOYMENTS["SD"]]) is DEPLOYMENTS["SD"]


def test_the_word_prints_and_writes(tmp_path, capsys):
    write_vllm_bench(simulate(BUSY), tmp_path / "run.json")
    files = {name: tmp_path / f"out.{name}" for name in ("json", "html", "again")}
    main(
        [str(tmp_path / "run.json"), "model=qwen3_8b", "--json", str(files["json"]), "cluster=h200", "speculation=off",
         "--html", str(files["html"]), "--save-result", str(files["again"]), "--windows", "5"],
        compose,
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "TTFT mean, ms" in printed
    assert "5 of 5 windows" in printed
    written = json.loads(files["json"].read_text())
    assert len(written["windows"]) == 5
    assert written["statistics"][0].keys() == {"figure", "statistic", "measured", "simulated", "error"}
    page = files["html"].read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "TPOT p99, ms" in page
    assert "://" not in page
    assert len(read_measured(str(files["again"])).columns) == 80


def test_the_word_ends_with_one_line(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"moesd-sim compare: .*run.json: must come from"):
        main([str(tmp_path / "run.json"), "model=qwen3_8b"], compose)


def test_a_deployment_that_holds_no_request_ends_with_one_line(tmp_path):
    write_vllm_bench(simulate(BUSY), tmp_path / "run.json")
    overrides = ("model=qwen3_8b", "cluster=h200", "speculation=off", "cluster.kv_blocks=1")
    with pytest.raises(SystemExit, match="moesd-sim compare: no request fits"):
        main([str(tmp_path / "run.json"), *overrides], compose)


def test_a_real_run_has_the_statistics_its_publishers_print(shared_data, tmp_path):
    """vLLM 0.19 on an RTX PRO 6000: TTFT, TPOT and latency beside the requests in `peer_sim_summary.txt`."""
    folder = shared_data / "llmservingsim" / "vllm_e2e" / "RTXPRO6000" / "Llama-3.1-8B"
    with gzip.open(folder / "requests.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    document = {
        "completed": len(rows), "request_throughput": 0.0,
        "input_lens": [row["input_toks"] for row in rows], "output_lens": [row["output_toks"] for row in rows],
        "ttfts": [row["first_token_ts"] - row["queued_ts"] for row in rows],
        "latencies": [row["last_token_ts"] - row["queued_ts"] for row in rows], "itls": [[]] * len(rows),
        "start_times": [row["queued_ts"] for row in rows],
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(document))
    measured = read_measured(str(tmp_path / "run.json"))
    printed = {}
    for line in (folder / "peer_sim_summary.txt").read_text().splitlines():
        words = line.split()
        if len(words) == 5 and words[0] in {"TTFT", "TPOT", "Latency"}:
            printed[words[0], words[1]] = float(words[2]) / 1e3
    figures = {"TTFT": "ttft_s", "TPOT": "tpot_s", "Latency": "e2e_s"}
    names = {"Mean": "mean", "Median": "p50", "P90": "p90", "P99": "p99"}
    seen = measured.statistics()
    for (figure, name), value in printed.items():
        if name in names:
            assert seen[figures[figure]][names[name]] == pytest.approx(value, abs=1e-4), (figure, name)
    made = experiment("llama31_8b", cluster=Cluster(gpu="rtx_pro_6000"))
    comparison = compare(simulate(made, measured.requests()), measured)
    error = next(s.error for s in comparison.statistics if (s.figure, s.statistic) == ("tpot_s", "mean"))
    assert sum(window.tpot_share for window in comparison.windows) == pytest.approx(error)
    assert abs(error) < 0.5
