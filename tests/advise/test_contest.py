"""The advised policy, simulated, beats every fixed draft length or ties it within 1 %."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim import Cluster, simulate
from sim.advise.advice import WITHIN
from sim.advise.contest import candidates, hold
from sim.advise.load import Load, at_load
from sim.speculation.batch_length import TableByBatch
from sim.speculation.eagle import Eagle
from sim.speculation.length import Fixed
from tests.advise.deployments import DEPLOYMENTS, EAGLE3, drafted, served

LOADS = [Load("rate_per_s", 8.0), Load("concurrency", 16.0)]
CASES = [(name, load) for name in DEPLOYMENTS for load in LOADS]
CASES.append(("MoE, draft model", Load("rate_per_s", 2.0)))
SATURATED = 0.03
"""What a table by batch may lose where prompts set the pace: it cannot see how long the queue is."""


def silent(label):
    del label


@pytest.mark.parametrize(("name", "load"), CASES, ids=str)
def test_advised_beats_every_fixed_length(name, load):
    model, cluster, drafter, rate = DEPLOYMENTS[name]
    plain = served(model, cluster, num_requests=25)
    requests = at_load(plain.workload.requests(0), load)
    contest = hold(plain, [drafted(plain, drafter, rate)], requests, silent)
    fixed = [entry for entry in contest.entries if isinstance(entry.length, Fixed)]
    table = next((entry for entry in contest.entries if isinstance(entry.length, TableByBatch)), None)
    assert len(fixed) == 4
    advised = contest.advised(WITHIN)
    assert advised is not None
    figures = ("e2e", "tpot") if load.kind == "rate_per_s" else ("throughput",)
    assert contest.objective == figures[0]
    for figure in figures:
        best = max(entry.gain[figure] for entry in fixed)
        assert advised.gain[figure] >= (1 - WITHIN) * best
        if table is not None:
            least = WITHIN if load.kind == "rate_per_s" else SATURATED
            assert table.gain[figure] >= (1 - least) * best


def test_a_table_wins_where_lengths_must_change_with_the_batch():
    """MoE: one draft while few sequences run and each hits experts of its own, more once all experts are hit anyway."""
    model, cluster, drafter, rate = DEPLOYMENTS["MoE, draft model"]
    plain = served(model, cluster)
    requests = at_load(plain.workload.requests(0), Load("rate_per_s", 8.0))
    contest = hold(plain, [drafted(plain, drafter, rate)], requests, silent)
    advised = contest.advised(WITHIN)
    assert isinstance(advised.length, TableByBatch)
    assert advised.gain["e2e"] > contest.best(fixed=True).gain["e2e"]


def test_no_sd_where_nothing_is_accepted():
    plain = served("llama31_8b", DEPLOYMENTS["dense, EAGLE-3"][1])
    contest = hold(plain, [drafted(plain, DEPLOYMENTS["dense, EAGLE-3"][2], 0.0)], plain.workload.requests(0), silent)
    assert contest.advised(WITHIN) is None
    assert contest.best().gain["e2e"] < 1.0


@pytest.mark.parametrize("why", ["tree", "ranks in lockstep"])
def test_no_table_where_no_engine_runs_one(why):
    plain = served("qwen3_30b_a3b", DEPLOYMENTS["MoE, draft model"][1], num_requests=3)
    drafter = EAGLE3
    if why == "tree":
        drafter = Eagle(version=1, top_k=4, nodes=8)
    else:
        plain = replace(plain, cluster=Cluster(gpu="h200_sxm", data_parallel=2, expert_parallel=True))
    requests = plain.workload.requests(0)
    kv = simulate(plain, requests).kv
    found = candidates(drafted(plain, drafter, 0.7), requests, kv, saturated=False)
    assert [one.speculation.length.most_drafts for one in found] == [1, 2, 3, 4]
    assert all(isinstance(one.speculation.length, Fixed) for one in found)
