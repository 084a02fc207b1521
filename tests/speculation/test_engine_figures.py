"""Engines' own figures: the same acceptance comes out of whatever an engine prints about it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sim.draws import derive, key
from sim.speculation.acceptance import BetaRate, MeanLength, RatePerDepth, RatePerPosition
from sim.speculation.engine_figures import (
    fit_beta_rate,
    read_request_histograms,
    read_sglang,
    read_vllm_log,
    read_vllm_metrics,
)

TRUTH = RatePerDepth(rates=[0.8, 0.7, 0.6])
ROUNDS = 40_000


@pytest.fixture(scope="module")
def accepted():
    """Accepted drafts of every round of a run with three drafts."""
    return TRUTH.depths(derive(key(0, "acceptance"), np.arange(ROUNDS)), np.ones(ROUNDS, dtype=np.int64), 3)


def per_position(accepted):
    return [int((accepted >= j).sum()) for j in (1, 2, 3)]


def metrics_page(accepted, engine=0, model="m", suffix="_total"):
    labels = f'engine="{engine}",model_name="{model}"'
    lines = [
        "# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.",
        "# TYPE vllm:spec_decode_num_drafts_total counter",
        f"vllm:spec_decode_num_drafts{suffix}{{{labels}}} {float(len(accepted))}",
        f"vllm:spec_decode_num_drafts_created{{{labels}}} 1.7567367e+09",
        f"vllm:spec_decode_num_draft_tokens{suffix}{{{labels}}} {3.0 * len(accepted)}",
        f"vllm:spec_decode_num_accepted_tokens{suffix}{{{labels}}} {float(accepted.sum())}",
        f'vllm:spec_decode_num_accepted_tokens_per_pos_created{{{labels},position="0"}} 1.7567367e+09',
        f"vllm:num_requests_running{{{labels}}} 12.0",
    ]
    lines += [
        f'vllm:spec_decode_num_accepted_tokens_per_pos{suffix}{{{labels},position="{j}"}} {float(count)}'
        for j, count in enumerate(per_position(accepted))
    ]
    return "\n".join(lines) + "\n"


def log_line(accepted):
    n = len(accepted)
    rates = ", ".join(f"{count / n:.3f}" for count in per_position(accepted))
    return (
        f"(APIServer pid=7) INFO 09-09 11:51:35 [metrics.py:96] SpecDecoding metrics: Mean acceptance length: "
        f"{1 + accepted.mean():.2f}, Accepted throughput: 4.37 tokens/s, Drafted throughput: 4.92 tokens/s, Accepted: "
        f"{accepted.sum()} tokens, Drafted: {3 * n} tokens, Per-position acceptance rate: {rates}, "
        f"Avg Draft acceptance rate: {100 * accepted.mean() / 3:.1f}%\n"
    )


def response(accepted, name, wrap):
    return wrap({name: np.bincount(accepted, minlength=4).tolist(), "id": "r"})


def check(figures, accepted, tolerance):
    assert figures.acceptance_length == pytest.approx(1 + accepted.mean(), abs=tolerance)
    assert figures.acceptance.mean_accepted(3) + 1 == pytest.approx(figures.acceptance_length)
    assert figures.accepted_per_drafted == pytest.approx(accepted.mean() / 3, abs=tolerance)
    if isinstance(figures.acceptance, RatePerPosition):
        assert figures.figure == "unconditional rate per position"
        assert figures.acceptance.survival(3) == pytest.approx(
            [c / len(accepted) for c in per_position(accepted)], abs=1e-3
        )
        assert figures.acceptance.survival(3) == pytest.approx(TRUTH.survival(3), abs=0.012)


@pytest.mark.parametrize("suffix", ["_total", ""])
def test_vllm_metrics(accepted, suffix):
    figures = read_vllm_metrics(metrics_page(accepted, suffix=suffix))
    check(figures, accepted, 1e-9)
    assert figures.rounds == ROUNDS


def test_vllm_metrics_of_several_engines_and_of_a_run(accepted):
    halves = metrics_page(accepted[:20_000], engine=0) + metrics_page(accepted[20_000:], engine=1)
    check(read_vllm_metrics(halves), accepted, 1e-9)
    check(read_vllm_metrics(metrics_page(accepted), before=metrics_page(accepted[:10_000])), accepted[10_000:], 1e-9)
    both = metrics_page(accepted[:99], model="a") + metrics_page(accepted, model="b")
    check(read_vllm_metrics(both, model="b"), accepted, 1e-9)
    with pytest.raises(ValueError, match="must be of one model, got a, b; choose by `model`"):
        read_vllm_metrics(both)


def test_vllm_log_weighs_its_intervals(accepted):
    text = "INFO unrelated\n" + log_line(accepted[:1000]) + "INFO other\n" + log_line(accepted[1000:])
    check(read_vllm_log(text), accepted, 2e-3)


def test_vllm_v0_log_gives_the_system_efficiency():
    """Both lines are from public issues; emitted tokens are theirs too, and agree."""
    line = (
        "Speculative metrics: Draft acceptance rate: {}, System efficiency: {}, Number of speculative tokens: {}, "
        "Number of accepted tokens: {}, Number of draft tokens: {}, Number of emitted tokens: {}."
    )
    for published, drafts, drafted, emitted in (
        (line.format(0.607, 0.510, 4, 32594, 53716, 34244), 4, 53716, 34244),  # vllm-project/vllm#7301
        (line.format(0.642, 0.598, 3, 8547, 13311, 10616), 3, 13311, 10616),  # vllm-project/vllm#9539
    ):
        figures = read_vllm_log(f"INFO 10-16 metrics.py:367] {published}\n")
        assert figures.figure == "system efficiency"
        assert figures.rounds == drafted / drafts
        assert figures.acceptance_length * figures.rounds == pytest.approx(emitted, rel=2e-3)
        assert figures.acceptance.mean_accepted(drafts) + 1 == pytest.approx(figures.acceptance_length)


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("acceptance_histogram", lambda h: {"choices": [], "metrics": {"speculative_decoding": h}}),
        ("spec_accept_histogram", lambda h: {"text": "x", "meta_info": h}),
        ("spec_correct_drafts_histogram", lambda h: {"choices": [{"meta_info": h}]}),
    ],
)
def test_histograms_of_requests(accepted, name, wrap):
    responses = [response(part, name, wrap) for part in np.split(accepted, 100)]
    lines = "\n".join(map(json.dumps, [*responses, {"choices": []}]))
    for text in (lines, json.dumps(responses)):
        figures = read_request_histograms(text)
        check(figures, accepted, 1e-9)
        assert figures.rounds == ROUNDS


def test_requests_that_differ_show_it():
    truth = BetaRate(mean=0.7, concentration=6.0)
    keys = derive(key(5, "acceptance"), np.arange(600))[:, None]
    depths = truth.depths(keys, np.arange(120)[None, :], 4)
    lines = [json.dumps({"acceptance_histogram": np.bincount(row, minlength=5).tolist()}) for row in depths]
    fitted = fit_beta_rate("\n".join(lines))
    assert fitted.mean == pytest.approx(truth.mean, abs=0.02)
    assert fitted.concentration == pytest.approx(truth.concentration, rel=0.25)
    alike = RatePerDepth(rates=[0.7] * 4).depths(keys, np.arange(120)[None, :], 4)
    lines = [json.dumps({"acceptance_histogram": np.bincount(row, minlength=5).tolist()}) for row in alike]
    assert fit_beta_rate("\n".join(lines)).concentration > 200
    with pytest.raises(ValueError, match="at least 2 with accepted and rejected drafts"):
        fit_beta_rate(lines[0])


def test_a_published_histogram():
    """sgl-project/sglang#33518: 63 of 215 drafts in 43 rounds, 2.465 tokens a round."""
    text = json.dumps({"spec_verify_ct": 43, "spec_correct_drafts_histogram": [11, 14, 11, 4, 0, 3]})
    figures = read_request_histograms(text)
    assert figures.accepted_per_drafted == pytest.approx(0.2930232558)
    assert figures.acceptance_length == pytest.approx(2.4651162790)


def test_a_name_in_two_versions_counts_once():
    text = json.dumps({"spec_accept_histogram": [1, 2], "spec_correct_drafts_histogram": [1, 2]})
    assert read_request_histograms(text).rounds == 3


def test_sglang_length_in_its_three_places(accepted):
    length = 1 + accepted.mean()
    batch = (
        "[2025-12-04 20:35:53] Decode batch. #running-req: {}, #token: 3894, token usage: 0.00, accept len: {:.2f}, "
        "accept rate: {:.2f}, cuda graph: True, gen throughput (token/s): 5452.63, #queue-req: 0, \n"
    )
    log = batch.format(30, 1 + accepted[:30_000].mean(), 0.4) + batch.format(10, 1 + accepted[30_000:].mean(), 0.9)
    summary = f"Concurrency:            142.34\nAccept length:                           {length:.2f}\n"
    gauge = f'sglang:spec_accept_length{{model_name="m"}} {length}\nsglang:spec_accept_rate{{model_name="m"}} 0.5\n'
    for text in (log, summary, gauge, log + summary):
        figures = read_sglang(text, drafts=3)
        assert figures.figure == "acceptance length"
        assert isinstance(figures.acceptance, MeanLength)
        check(figures, accepted, 0.01)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: read_vllm_metrics("vllm:num_requests_running 1.0\n"), "is speculative decoding on"),
        (lambda: read_vllm_metrics("vllm:spec_decode_num_drafts_total 4.0\n"), "got drafts; is"),
        (
            lambda: read_vllm_metrics(metrics_page(np.array([1, 2])), metrics_page(np.array([1, 2, 3]))),
            "did the server restart",
        ),
        (lambda: read_vllm_metrics(metrics_page(np.array([], dtype=np.int64))), "at least one round with drafts"),
        (lambda: read_vllm_log("INFO nothing here"), "vLLM log: must hold lines"),
        (
            lambda: read_vllm_log(
                "SpecDecoding metrics: Drafted: 4 tokens, Per-position acceptance rate: 0.500, 0.250\n"
                "SpecDecoding metrics: Drafted: 3 tokens, Per-position acceptance rate: 0.500\n"
            ),
            r"must have one draft length, got \[1, 2\]",
        ),
        (lambda: read_sglang("nothing", drafts=3), "SGLang: must hold"),
        (lambda: read_sglang("Accept length:   5.00\n", drafts=3), r"must lie in \[1, drafts \+ 1 = 4\], got 5"),
        (lambda: read_request_histograms("{}"), "must hold acceptance_histogram"),
        (lambda: read_request_histograms("{}\nnonsense"), "responses:2: must be JSON"),
        (lambda: read_request_histograms('{"acceptance_histogram": [1, -1]}'), "must be a list of counts"),
    ],
)
def test_what_cannot_be_read_is_refused(read, message):
    with pytest.raises(ValueError, match=message):
        read()
