"""Advice as a whole: what is claimed, what is not, what is written."""

from __future__ import annotations

import json

import pytest

from sim import Cluster, ConstantRate, Fixed, simulate
from sim.advise.advice import NO_SD, advise
from sim.advise.command import main, write_files
from sim.advise.document import as_dict
from sim.advise.exports import length_of
from sim.advise.tables import print_advice
from sim.advise.verdict import verdict
from sim.application import compose
from sim.metrics.summary import speedup
from sim.speculation.mtp import Mtp
from tests.advise.deployments import EAGLE3, H100, drafted, served, with_sd

SMALL = (
    "workload=poisson_fixed", "workload.num_requests=10", "workload.rate_per_s=6", "workload.output.tokens=40",
    "scheduler.max_batched_tokens=512", "scheduler.max_seqs=48", "cluster=h100",
)  # fmt: skip


@pytest.fixture(scope="module")
def claimed():
    plain = served("llama31_8b", H100, num_requests=20)
    return advise(plain, [drafted(plain, EAGLE3, 0.75, drafts=3)], plain.workload.requests(0))


@pytest.fixture(scope="module")
def unclaimed():
    plain = served("llama31_8b", H100, num_requests=20)
    return advise(plain, [drafted(plain, EAGLE3, 0.75, drafts=2, known=False)], plain.workload.requests(0))


def test_sd_is_advised_with_its_gain_and_band(claimed):
    assert claimed.advised is not None
    band = claimed.gains[claimed.advised.label]["e2e"]
    assert 1.0 < band.low < band.value < band.high
    assert band.value == pytest.approx(claimed.advised.gain["e2e"])
    assert f"{band.value:.2f}x" in verdict(claimed)
    assert verdict(claimed).startswith("SD on with drafter")
    plain = claimed.figures[NO_SD]["tpot"]
    assert plain.low < plain.value < plain.high


def test_the_drafter_s_memory_adds_up(claimed):
    memory, entry = claimed.drafters[0].memory, claimed.advised
    kv = entry.result.kv
    assert memory.pool_tokens == kv.blocks * kv.block_tokens < memory.plain_pool_tokens
    assert kv.block_bytes == pytest.approx((memory.token_bytes + memory.target_token_bytes) * kv.block_tokens)
    lost = memory.plain_pool_tokens * memory.target_token_bytes - memory.pool_tokens * kv.block_bytes / kv.block_tokens
    assert abs(lost - memory.weight_bytes) < 2 * kv.block_bytes


def test_an_unknown_acceptance_claims_no_gain(unclaimed):
    assert not unclaimed.claims
    assert unclaimed.advised is None
    assert not unclaimed.contest.entries
    assert not unclaimed.curves
    assert verdict(unclaimed).startswith("No gain is claimed")
    document = as_dict(unclaimed)
    assert document["speculation"] is None
    assert document["vllm_speculative_config"] is None
    assert {value for row in document["drafters"]["drafter"]["surfaces"]["best_speedup"] for value in row} == {None}


def test_the_needed_acceptance_is_where_sd_begins_to_pay(unclaimed):
    plain = unclaimed.contest.plain
    for found in unclaimed.drafters[0].needed:
        assert found.most_gain > 1.0
        for rate, pays in ((found.rate, True), (found.rate - 2**-4, False)):
            speculated = with_sd(plain.experiment, EAGLE3, ConstantRate(rate=max(0.0, rate)), found.drafts)
            gain = speedup(plain.summary(), simulate(speculated, plain.requests).summary())["e2e"]
            assert (gain > 1.0) == pays
        assert 1.0 < found.length < found.drafts + 1


def test_files_load_back_and_the_page_holds_its_figures(claimed, tmp_path):
    names = write_files(claimed, tmp_path)
    config = json.loads((tmp_path / "vllm_speculative_config.json").read_text())
    assert length_of(config) == claimed.advised.length
    assert "sglang_flags.txt" in names
    document = json.loads((tmp_path / "advice.json").read_text())
    assert document["vllm_speculative_config"] == config
    assert document["advised"]["gain"] == claimed.advised.gain
    page = (tmp_path / "advice.html").read_text()
    for name in ("gain-by-load", "even-0", "best-0", "gain-0"):
        assert f'id="fig-{name}"' in page
        assert f'"{name}":' in page


def test_the_table_on_the_terminal_names_what_it_shows(claimed):
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    print_advice(claimed, Console(file=text, width=120))
    for words in (
        "Simulated at",
        "even, by context and batch",
        "best draft length",
        "KV pool holds",
        "--speculative-config",
    ):
        assert words in text.getvalue()


def test_the_command_writes_and_says_where(tmp_path, capsys):
    out = tmp_path / "advice"
    own = ["eagle3/acceptance=constant", "eagle3.acceptance.rate=0.8"]
    words = ["model=llama31_8b", "drafters=eagle3,ngram", *own, "most=2", f"out={out}"]
    assert main([*words, *SMALL], compose) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(str(out))
    document = json.loads((out / "advice.json").read_text())
    assert document["drafters"]["ngram"]["acceptance"] == "unknown"
    assert {entry["drafter"] for entry in document["candidates"]} == {"eagle3"}
    measure = json.loads((out / "vllm_measure_ngram.json").read_text())
    assert (measure["method"], length_of(measure)) == ("ngram", Fixed(drafts=2))


def as_served(*overrides):
    """Stands in for the composition of a configuration: one deployment, with SD."""
    plain = served("llama31_70b" if "model=llama31_70b" in overrides else "qwen3_8b", Cluster(gpu="h100_sxm"))
    return [plain, with_sd(plain, Mtp() if "speculation=mtp" in overrides else EAGLE3, 0.7)]


@pytest.mark.parametrize(
    ("words", "composed", "message"),
    [
        ([], compose, "model must be one, got Qwen2-57B-A14B, Qwen3-32B"),
        (["drafters=nope", "model=qwen3_8b"], compose, "Could not find 'speculation/nope'"),
        (["speculation=off"], lambda *_: as_served()[:1], "speculation=off has no drafter"),
        (["speculation=mtp", "acceptance=preset"], as_served, "speculation.drafter.modules must be <= 0"),
        (["model=llama31_70b", "acceptance=preset"], as_served, "use more or larger GPUs"),
        (["run=missing.json"], as_served, "run must name result files of a benchmark, got 'missing.json'"),
    ],
)
def test_what_cannot_be_advised_on_ends_in_one_line(words, composed, message, capsys):
    assert main(words, composed) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("moesd-sim advise: ")
    assert error.count("\n") == 1


def test_a_deployment_needs_drafters():
    plain = served("llama31_8b", H100)
    with pytest.raises(ValueError, match="drafters must name at least one"):
        advise(plain, [], plain.workload.requests(0))
