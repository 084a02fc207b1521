"""The law the engine stands on: blocks of steps, of any length, equal one event per step to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.serving.kv import KvLayout
from tests.serving.engine import Deployment, stream

ROOMY = KvLayout(blocks=20_000, block_tokens=16)
TIGHT = KvLayout(blocks=150, block_tokens=16, lookahead_tokens=3)


def check(deployment: Deployment, requests, caps=(1, 7, 4096)):
    slow = deployment.slow(requests)
    for cap in caps:
        fast = deployment.fast(requests, max_block_steps=cap)
        assert list(fast.first_token) == slow["first"], cap
        assert list(fast.finish) == slow["finish"], cap
        assert list(fast.preemptions) == slow["preemptions"], cap
        assert list(fast.rounds) == slow["rounds"]
        if deployment.most:
            assert list(fast.accepted) == slow["accepted"]
            assert list(fast.drafted) == slow["drafted"]
        assert int(fast.blocks()["steps"].sum()) == slow["steps"]
    return slow


@pytest.mark.parametrize("drafts", [0, 1, 4])
@pytest.mark.parametrize("kv", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize(("replicas", "router"), [(1, "robin"), (3, "least"), (3, "robin")])
@pytest.mark.parametrize("concurrency", [0, 24], ids=["open", "closed"])
def test_equals_reference(drafts, kv, replicas, router, concurrency):
    requests = stream(300, rate_per_s=30.0 * replicas, concurrency=concurrency)
    deployment = Deployment(drafts=drafts, kv=kv, replicas=replicas, router=router)
    slow = check(deployment, requests)
    if kv is TIGHT and replicas == 1:
        assert sum(slow["preemptions"]) > 0, "the tight case must preempt, else it tests nothing"


def test_heavy_and_light_load():
    for rate in (0.5, 5.0, 200.0):
        check(Deployment(drafts=3, max_seqs=16, budget=256), stream(200, rate))


def test_whole_prompt_admission_differs_and_is_exact():
    requests = stream(300, rate_per_s=100.0, prompt=900)
    loose, whole = Deployment(kv=TIGHT, budget=128), Deployment(kv=TIGHT, budget=128, whole=True)
    requests.prompt_tokens[:] = np.minimum(requests.prompt_tokens, 1200)
    requests.output_tokens[:] = np.minimum(requests.output_tokens, 900)
    assert check(loose, requests) != check(whole, requests)


def test_simultaneous_arrivals_keep_their_order():
    requests = stream(120, rate_per_s=50.0)
    requests.arrival_s[:] = np.floor(requests.arrival_s * 4) / 4
    slow = check(Deployment(replicas=2, max_seqs=4, budget=512), requests)
    assert all(t >= 0 for t in slow["finish"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    rate=st.floats(0.1, 500.0),
    drafts=st.integers(0, 6),
    alpha=st.floats(0.0, 1.0),
    replicas=st.integers(1, 3),
    blocks=st.integers(80, 400),
    max_seqs=st.integers(1, 32),
    budget=st.integers(256, 2048),
    whole=st.booleans(),
    lookahead=st.integers(0, 4),
    concurrency=st.sampled_from([0, 0, 1, 5, 40]),
    cap=st.integers(1, 64),
)
def test_equals_reference_anywhere(
    seed, n, rate, drafts, alpha, replicas, blocks, max_seqs, budget, whole, lookahead, concurrency, cap
):
    requests = stream(n, rate, seed=seed, prompt=200, output=40, concurrency=concurrency)
    room = blocks * 16 - 32
    requests.prompt_tokens[:] = np.minimum(requests.prompt_tokens, room - 300)
    requests.output_tokens[:] = np.minimum(requests.output_tokens, 250)
    deployment = Deployment(
        drafts=drafts, rate=alpha, replicas=replicas, kv=KvLayout(blocks, 16, lookahead_tokens=lookahead),
        max_seqs=max_seqs, budget=budget, whole=whole, seed=seed,
    )  # fmt: skip
    check(deployment, requests, caps=(1, cap, 4096))
