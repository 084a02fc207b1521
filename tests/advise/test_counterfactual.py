"""From one benchmark without SD: a server whose slowness is hidden, and published measurements."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest

from sim import ChunkedPrefill, Fixed, Lengths, Speculation, Synthetic, simulate
from sim.advise.bands import value_bands
from sim.advise.contest import Drafted, hold
from sim.advise.counterfactual import served as fitted
from sim.bands import run_bands
from sim.compare.measured import Measured
from sim.compare.vllm_bench_writer import write_vllm_bench
from sim.metrics.summary import speedup
from sim.run_fit.constants import with_constants
from sim.run_fit.fit import fit_run
from sim.speculation.acceptance import MeanLength
from tests.advise.deployments import EAGLE3, H100, served, with_sd

HIDDEN = {"slow host": (1.0, 3.0e-3), "slow kernels": (1.25, 1.0e-3)}
TOLERANCE = 0.06


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_server_is_told_from_its_benchmark_without_sd(name, tmp_path):
    """Gains of every draft length, and the times with and without SD, of a server of which one file is known."""
    described = replace(served("llama31_8b", H100, num_requests=25, rate_per_s=8.0), keep_steps=True)
    hidden = with_constants(described, *HIDDEN[name])
    truth = simulate(hidden)
    write_vllm_bench(truth, tmp_path / "bench.json")
    server = fitted(described, [str(tmp_path / "bench.json")])
    drafted = server.drafted(Drafted("eagle3", with_sd(described, EAGLE3, 0.7, drafts=3)))
    contest = hold(server.fit.experiment, [drafted], server.requests, lambda _: None)
    true_tpot_s = truth.summary()["tpot_s"]["mean"]
    assert contest.plain.summary()["tpot_s"]["mean"] == pytest.approx(true_tpot_s, rel=0.02)
    assert server.measured["tpot"] == pytest.approx(true_tpot_s)
    for entry in contest.entries:
        real = simulate(with_constants(entry.result.experiment, *HIDDEN[name]), truth.requests).summary()
        assert entry.gain["tpot"] == pytest.approx(speedup(truth.summary(), real)["tpot"], rel=TOLERANCE)
    best = contest.best()
    real = simulate(with_constants(best.result.experiment, *HIDDEN[name]), truth.requests).summary()
    band = value_bands(best.result, run_bands(best.result))["tpot"]
    assert band.low < real["tpot_s"]["mean"] < band.high


def test_a_benchmark_with_sd_is_refused(tmp_path):
    plain = served("llama31_8b", H100, num_requests=5)
    write_vllm_bench(simulate(with_sd(plain, EAGLE3, 0.7)), tmp_path / "sd.json")
    with pytest.raises(ValueError, match="run must be a benchmark without SD, got one with spec_decode_acceptance_"):
        fitted(plain, [str(tmp_path / "sd.json")])


def test_a_simulated_benchmark_is_not_called_measured(tmp_path):
    plain = served("llama31_8b", H100, num_requests=10)
    write_vllm_bench(simulate(plain), tmp_path / "bench.json")
    server = fitted(plain, [str(tmp_path / "bench.json")])
    assert any("holds a prediction and no measurement" in note for note in server.notes())
    assert json.loads((tmp_path / "bench.json").read_text())["predicted_by"]


def test_published_speedups_follow_from_the_step_time_without_sd(root):
    """Llama-3.1-8B on one H100 under vLLM 0.10.1: specdecode-bench.github.io, ShareGPT (355 + 728 tokens on the mean).

    Fitted to one figure without SD, TPOT at batch 1 by the source's line: 5.886 ms + 21.01 us per token + 39.3 ns per
    cached token + 1.21 ms. Predicted: EAGLE-3 with three drafts, 2.2542 tokens per round in the source's own traces.
    """
    with (root / "validation" / "measured" / "sd_speedups.csv").open(newline="") as file:
        rows = [
            row for row in csv.DictReader(file)
            if (row["engine"], row["model"], row["drafter"], row["dataset"])
            == ("vLLM 0.10.1", "llama31_8b", "eagle3", "ShareGPT")
        ]  # fmt: skip
    measured = {int(float(row["batch"])): float(row["speedup"]) for row in rows if float(row["batch"]) <= 16}
    assert sorted(measured) == [1, 16]
    tpot_s = 5.886e-3 + 21.01e-6 + 39.3e-9 * (355 + 728 / 2) + 1.21e-3
    acceptance = MeanLength(length=2.2542, drafts=3)
    speculated = Speculation(drafter=EAGLE3, length=Fixed(drafts=3), acceptance=acceptance)
    plain = replace(served("llama31_8b", H100), workload=in_flight(1), scheduler=ChunkedPrefill())
    server = fit_run(plain, [Measured(source="published", tool="table", stated={"tpot_s": {"mean": tpot_s}})])
    for batch, expected in measured.items():
        without = simulate(replace(server.experiment, workload=in_flight(batch)))
        with_drafts = simulate(replace(server.experiment, workload=in_flight(batch), speculation=speculated))
        gain = speedup(without.summary(), with_drafts.summary())["tpot"]
        assert gain == pytest.approx(expected, rel=0.05)
        low, high = run_bands(with_drafts).speedup(run_bands(without), {"tpot": gain})["tpot"]
        assert low < expected < high


def in_flight(batch):
    lengths = {"prompt": Lengths(kind="fixed", tokens=355), "output": Lengths(kind="fixed", tokens=728)}
    return Synthetic(num_requests=2 * batch, arrival="closed_loop", concurrency=batch, **lengths)
