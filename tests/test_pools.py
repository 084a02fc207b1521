"""Disaggregated deployments: what is sent, how long it takes, and what that changes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sim import Cluster, compose, load_model, simulate, step_cost
from sim.disaggregation import Disaggregation
from sim.footprint import kv_groups
from sim.job import compare, twins
from sim.pools import kv_transfer
from sim.serving.failures import PlannedFailures
from sim.serving.prefill_first import StaticBatch
from sim.serving.router import LeastRequests, PrefixAware
from tests.deployments import experiment, speculation, workload

TWO = Cluster(gpu="h200_sxm", replicas=2)
LAST_DIES = PlannedFailures(outages_s=[[2, 3.0, 1e3]])


def settings(**changes):
    base = Disaggregation(prefill_replicas=1, prefill_router=LeastRequests(), link="infiniband_ndr")
    return replace(base, **changes)


def pooled(model="qwen3_8b", **changes):
    base = {"cluster": TWO, "workload": workload(60, 12.0), "disaggregation": settings()}
    return experiment(model, **base | changes)


@pytest.fixture(scope="module")
def result():
    return simulate(pooled(speculation=speculation()))


@pytest.mark.parametrize("model", ["qwen3_8b", "gpt_oss_20b", "deepseek_v2_lite", "qwen3_next_80b_a3b"])
@pytest.mark.parametrize("tokens", [1, 100, 5000])
def test_what_is_sent_is_what_a_sequence_has_cached(model, tokens):
    """Full, sliding, latent and linear layers; those that grow in whole blocks."""
    cost = step_cost(experiment(model, cluster=TWO))
    sent = kv_transfer(settings(), cost, cost, 16)
    whole = -(-tokens // 16) * 16
    groups = kv_groups(load_model(model, "model"))
    expected = sum(group.sequence_bytes(tokens if group.window_tokens else whole) for group in groups)
    assert sent.bytes(tokens) == pytest.approx(expected)


def test_unequal_tensor_parallelism():
    """KV heads are dealt out, a latent is copied to every receiver; the side with fewer GPUs sets the pace."""
    gqa, mla = (
        {
            (p, d): kv_transfer(
                settings(),
                step_cost(experiment(model, cluster=Cluster(gpu="h200_sxm", tensor_parallel=p))),
                step_cost(experiment(model, cluster=Cluster(gpu="h200_sxm", tensor_parallel=d))),
                16,
            )
            for p, d in ((1, 1), (1, 4), (4, 1), (4, 4))
        }
        for model in ("qwen3_8b", "deepseek_v2_lite")
    )
    assert len({transfer.bytes(160) for transfer in gqa.values()}) == 1
    assert [transfer.bytes(160) / mla[1, 1].bytes(160) for transfer in mla.values()] == [1, 4, 1, 4]
    for found in (gqa, mla):
        assert [transfer.bytes_per_s / 5e10 for transfer in found.values()] == [1, 1, 1, 4]


def test_each_pool_does_its_part(result):
    blocks, requests = result.recorder.blocks(), result.requests
    prefills = blocks["replica"] == 0
    assert set(np.unique(blocks["replica"])) == {0, 1, 2}
    assert blocks["prefill_tokens"][prefills].sum() == requests.prompt_tokens.sum()
    assert blocks["chunks"][~prefills].sum() == blocks["sequences"][prefills].sum() == 0
    assert blocks["emitted_tokens"][prefills].sum() == len(requests)
    assert blocks["emitted_tokens"].sum() == requests.output_tokens.sum()
    assert sum(result.summary()["phase_share"].values()) == pytest.approx(1.0)


def test_transfers_take_their_time(result):
    frame, summary = result.requests_frame(), result.summary()
    sent = frame[frame["output_tokens"] > 1]
    transfer = kv_transfer(settings(), result.cost, result.cost, 16)
    least = [transfer.bytes(tokens) / transfer.bytes_per_s for tokens in sent["prompt_tokens"]]
    taken = sent["transfer_end_s"] - sent["transfer_start_s"]
    assert (taken >= np.array(least) + transfer.latency_s - 1e-9).all()
    assert (sent["transfer_start_s"] >= sent["first_token_s"]).all()
    assert (sent["transfer_end_s"] < sent["finish_s"]).all()
    assert (sent["prefill_replica"] == 0).all() and set(sent["replica"]) == {1, 2}
    assert summary["transfer"]["transfer_s"]["mean"] == pytest.approx(taken.mean())
    order = sent.sort_values("transfer_start_s")
    gap = order["transfer_start_s"].to_numpy()[1:] - order["transfer_end_s"].to_numpy()[:-1]
    assert (gap >= -transfer.latency_s - 1e-9).all(), "one sender, one transfer at a time"
    assert frame[frame["output_tokens"] == 1]["transfer_end_s"].isna().all()


def test_the_link_is_felt_after_the_first_token_only():
    fast, slow, ahead = (
        simulate(pooled(disaggregation=settings(**changes)))
        for changes in ({}, {"bandwidth_share": 0.05}, {"bandwidth_share": 0.05, "overlap": True})
    )
    assert fast.recorder.first_token == slow.recorder.first_token == ahead.recorder.first_token
    delay = [run.summary()["transfer"]["delay_s"]["mean"] for run in (fast, slow, ahead)]
    assert delay[0] < delay[2] < delay[1]
    assert slow.summary()["e2e_s"]["mean"] > fast.summary()["e2e_s"]["mean"]


def test_a_link_that_costs_nothing_leaves_a_step_boundary():
    """What remains of the delay is the wait for the decode side's next plan."""
    run = simulate(pooled(workload=workload(60, 1.0)))
    assert run.summary()["transfer"]["wait_s"]["p99"] < run.step_seconds().max()


def test_the_draft_model_may_compute_its_own_kv():
    sent, computed = (
        simulate(pooled(speculation=speculation(), disaggregation=settings(draft_kv=kind)))
        for kind in ("transferred", "recomputed")
    )
    costs = [kv_transfer(settings(draft_kv=k), sent.cost, sent.cost, 16) for k in ("transferred", "recomputed")]
    assert costs[0].bytes(1000) > costs[1].bytes(1000)
    assert computed.summary()["ttft_s"]["mean"] < sent.summary()["ttft_s"]["mean"], "the prefill side drafts nothing"
    plain = simulate(pooled())
    assert computed.recorder.first_token == plain.recorder.first_token
    assert computed.summary()["tpot_s"]["mean"] > sent.summary()["tpot_s"]["mean"], "at this speed of the link"


def test_a_prefill_pool_of_other_gpus():
    wide = settings(prefill_cluster=Cluster(gpu="h100_sxm", tensor_parallel=4))
    alike, other = simulate(pooled()), simulate(pooled(disaggregation=wide))
    assert other.summary()["ttft_s"]["mean"] < alike.summary()["ttft_s"]["mean"]
    assert other.experiment.gpus == 6 and alike.experiment.gpus == 3
    ratio = [run.summary()["throughput"] for run in (other, alike)]
    assert [each["output_tokens_per_s"] / each["output_tokens_per_s_per_gpu"] for each in ratio] == pytest.approx(
        [6, 3]
    )
    prefill = {k: v[other.recorder.blocks()["replica"] == 0] for k, v in other.recorder.blocks().items()}
    assert other.phases(prefill)["prefill"].sum() > 0
    assert other.kinds[0].cost_at(0).target.tensor_parallel == 4


def test_job_writes_and_reports_pools(tmp_path):
    comparison = compare(twins(pooled(speculation=speculation())))
    comparison.save(tmp_path)
    runs = json.loads((tmp_path / "summary.json").read_text())["runs"]
    assert all(run["transfer"]["delay_s"]["p50"] > 0 for run in runs.values())
    assert "transfer_end_s" in pd.read_parquet(tmp_path / "requests.parquet")
    assert "that prefill (1 of tensor parallel 1, infiniband_ndr)" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"disaggregation": {"prefill_replicas": 0}}, "prefill_replicas must lie in"),
        ({"disaggregation": {"bandwidth_share": 1.5}}, "bandwidth_share must lie in"),
        ({"disaggregation": {"draft_kv": "copied"}}, "draft_kv must be one of"),
        ({"disaggregation": {"link": "string"}}, "disaggregation.link must be one of infiniband"),
        ({"disaggregation": {"link": "nvlink4", "prefill_replicas": 7}}, "joins at most 8 GPUs"),
        ({"disaggregation": {"prefill_cluster": TWO}}, "prefill_replicas says how many"),
        ({"disaggregation": {"prefill_cluster": Cluster(gpu="h200_sxm", block_tokens=32)}}, "block by block"),
        ({"router": PrefixAware()}, "keep no prefix cache"),
        ({"scheduler": StaticBatch(max_seqs=64)}, "decodes the batch it has prefilled"),
        ({"failures": PlannedFailures(outages_s=[[3, 1.0, 1.0]])}, "replicas 0 to 2"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        pooled(**{k: settings(**v) if isinstance(v, dict) else v for k, v in changes.items()})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["speculation=eagle3", "model=llama31_8b", "disaggregation.draft_kv=recomputed"], "hidden states"),
        (["speculation=ngram", "disaggregation.draft_kv=recomputed"], "no effect for NGram"),
    ],
)
def test_options_that_do_not_go_together_are_refused(overrides, words):
    with pytest.raises(ValueError, match=words):
        compose("model=qwen3_8b", "cluster=h100", "disaggregation=pools", *overrides)


def test_a_fleet_of_several_kinds():
    three = simulate(pooled(disaggregation=None, cluster=Cluster(gpu="h200_sxm", replicas=3)))
    alike = simulate(pooled(disaggregation=None, cluster=Cluster(gpu="h200_sxm"), further_clusters=[TWO]))
    assert alike.recorder.finish == three.recorder.finish
    assert alike.recorder.replica == three.recorder.replica
    assert alike.summary()["phase_share"] == pytest.approx(three.summary()["phase_share"])
    slower = Cluster(gpu="a100_80gb_sxm", replicas=2)
    mixed = simulate(
        pooled(disaggregation=None, cluster=Cluster(gpu="h200_sxm"), further_clusters=[slower], failures=LAST_DIES)
    )
    served = np.bincount(mixed.recorder.replica, minlength=3)
    assert served[0] > served[1] > served[2] > 0, "the fewest requests are with the fast one, and the last one died"
    assert mixed.experiment.gpus == 3 and mixed.summary()["outages"] == 1
    assert sum(mixed.summary()["phase_share"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"further_clusters": [TWO]}, "must be empty with disaggregation"),
        ({"further_clusters": [Cluster(gpu="h200_sxm", data_parallel=2)], "disaggregation": None}, "got 2 and 1"),
    ],
)
def test_kinds_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        pooled(**changes)
