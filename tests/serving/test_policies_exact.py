"""Blocks equal single steps under every scheduler, draft length policy and planning depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.draws import derive, uniform
from sim.serving.chunked import ChunkedPrefill
from sim.serving.kv import KvLayout
from sim.serving.prefill_first import PrefillFirst, StaticBatch
from sim.speculation.batch_length import DisableAbove, MostTokens, TableByBatch
from sim.speculation.cascade import Cascade
from sim.speculation.request_length import Oracle, StepUpDown
from tests.serving.engine import Deployment, stream, with_prefixes
from tests.serving.test_exact_blocks import ROOMY, TIGHT, check

LENGTHS = {
    "table": TableByBatch(ranges=[[1, 2, 5], [3, 6, 2], [7, 64, 0]]),
    "disable": DisableAbove(drafts=4, batch=3),
    "best": MostTokens(most=5),
    "cascade": Cascade(candidates=[1, 3, 5], test_steps=3, set_steps=17),
    "up and down": StepUpDown(start=3, most=6),
    "oracle": Oracle(most=6),
}


def matches(keys, positions, drafts):
    """A drafter that finds nothing at a third of all positions."""
    return np.where(uniform(derive(derive(keys, positions), 7)) < 2 / 3, drafts, 0)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kv", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_lengths(length, kv, ahead):
    slow = check(Deployment(length=length, kv=kv, ahead=ahead, max_seqs=24), stream(150, 40.0))
    assert sum(slow["drafted"]) > 0
    if kv is TIGHT:
        assert sum(slow["preemptions"]) > 0


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kv", [ROOMY, TIGHT], ids=["roomy", "tight"])
def test_a_drafter_that_finds_nothing_now_and_then(kv, ahead):
    slow = check(Deployment(drafts=4, offers=matches, kv=kv, ahead=ahead), stream(150, 12.0))
    assert 0 < sum(slow["drafted"]) < 4 * sum(slow["rounds"])


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("scheduler", [ChunkedPrefill, PrefillFirst, StaticBatch])
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("concurrency", [0, 12])
def test_schedulers(scheduler, drafts, ahead, concurrency):
    requests = stream(150, 30.0, concurrency=concurrency)
    for kv in (ROOMY, TIGHT):
        check(Deployment(scheduler=scheduler, drafts=drafts, ahead=ahead, kv=kv, max_seqs=16, budget=1024), requests)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("scheduler", [ChunkedPrefill, PrefillFirst])
@pytest.mark.parametrize("kv", [ROOMY, KvLayout(260, 16)], ids=["roomy", "tight"])
def test_prefix_caching(kv, scheduler, drafts, ahead):
    """Shared prompts; and, last, requests that share nothing, where a preempted one finds its own blocks again."""
    requests = with_prefixes(stream(150, 30.0), 4)
    deployment = Deployment(scheduler=scheduler, drafts=drafts, ahead=ahead, kv=kv, prefix=True, max_seqs=24)
    slow = check(deployment, requests)
    without = replace(deployment, prefix=False).fast(requests)
    assert deployment.fast(requests).finish != without.finish
    if kv is not ROOMY:
        assert sum(slow["preemptions"]) > 0
        own = replace(deployment, kv=TIGHT)
        assert sum(check(own, stream(150, 30.0))["preemptions"]) > 0
        assert sum(own.fast(stream(150, 30.0)).hit_tokens) > 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 50),
    rate=st.floats(0.1, 500.0),
    alpha=st.floats(0.0, 1.0),
    length=st.sampled_from([None, *LENGTHS.values()]),
    ahead=st.sampled_from([0, 1]),
    scheduler=st.sampled_from([ChunkedPrefill, PrefillFirst, StaticBatch]),
    blocks=st.integers(80, 400),
    max_seqs=st.integers(1, 32),
    budget=st.integers(256, 2048),
    lookahead=st.integers(0, 6),
    concurrency=st.sampled_from([0, 0, 1, 5, 40]),
    prefixes=st.integers(-1, 4),
    cap=st.integers(1, 64),
)
def test_anything(
    seed, n, rate, alpha, length, ahead, scheduler, blocks, max_seqs, budget, lookahead, concurrency, prefixes, cap
):
    requests = stream(n, rate, seed=seed, prompt=200, output=40, concurrency=concurrency)
    requests.prompt_tokens[:] = np.minimum(requests.prompt_tokens, blocks * 16 - 332)
    requests.output_tokens[:] = np.minimum(requests.output_tokens, 250)
    requests = with_prefixes(requests, prefixes, seed=seed) if prefixes > 0 else requests
    deployment = Deployment(
        prefix=bool(prefixes), rate=alpha, length=length, ahead=ahead, scheduler=scheduler, max_seqs=max_seqs,
        budget=budget, seed=seed, kv=KvLayout(blocks, 16, lookahead_tokens=lookahead),
    )  # fmt: skip
    check(deployment, requests, caps=(1, cap, 4096))
