"""Attention ranks in lockstep: blocks equal single steps, and a step is the slowest rank's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.serving.chunked import ChunkedPrefill
from sim.serving.group import RankGroup
from sim.serving.kv import KvLayout
from sim.serving.lockstep import LockstepRounds
from sim.serving.prefill_first import PrefillFirst, StaticBatch
from sim.serving.rank import Rank
from sim.serving.router import LeastRequests, LeastTokens, PowerOfTwo
from sim.speculation.batch_length import MostTokens, TableByBatch
from sim.speculation.request_length import Oracle
from tests.serving.engine import stream, with_prefixes
from tests.serving.reference_group import LockstepRank, ReferenceGroup
from tests.serving.test_exact_blocks import ROOMY, TIGHT
from tests.serving.test_fleet import OFTEN, Fleet, chained, check, impatient


class CurvedLockstep:
    """Every rank's time depends on its own load, its context and the tokens of all, and not in a straight line."""

    def step(self, loads, context):
        tokens = [max(1, load.sequences * (1 + load.drafts) + sum(load.at_least) + load.moments[1]) for load in loads]
        shared = 3e-3 + 1e-6 * (len(loads) * max(tokens)) ** 1.1
        own = (
            1e-4 * np.log1p(cached)
            + 4e-8 * cached**1.05
            + 2e-5 * count
            + 2e-9 * load.moments[3]
            + 7e-5 * load.moments[4]
            for load, cached, count in zip(loads, context, tokens, strict=True)
            if load.busy
        )
        return round((shared + max(own)) * 10**12)

    def steps(self, loads, context):
        return np.array([self.step(loads, [column[i] for column in context]) for i in range(len(context[0]))])


@dataclass
class Grouped(Fleet):
    """Replicas of several ranks each."""

    group: int = 3

    def rank_maker(self, requests, recorder, max_block_steps):
        setup, paths = self.setup_of(requests, max_block_steps)

        def group(number):
            def rank(own, rounds):
                return Rank(own, setup, paths, recorder, rounds)

            def rounds(timeline):
                return LockstepRounds(setup, paths, timeline)

            return RankGroup(rank, rounds, self.group, number * self.group, CurvedLockstep(), recorder)

        return group

    def reference_maker(self, requests):
        rank = self.reference_class_maker(requests, LockstepRank)
        return lambda: ReferenceGroup([rank() for _ in range(self.group)], CurvedLockstep())


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("kv", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("concurrency", [0, 24], ids=["open", "closed"])
def test_equals_reference(drafts, kv, group, concurrency):
    requests = stream(100, rate_per_s=60.0 * group, concurrency=group * concurrency)
    slow = check(Grouped(drafts=drafts, kv=kv, group=group), requests)
    assert kv is ROOMY or sum(slow["preemptions"]) > 0


@pytest.mark.parametrize("failures", [None, OFTEN], ids=["", "often"])
@pytest.mark.parametrize("routing", [LeastRequests(), LeastTokens(), PowerOfTwo()], ids=["requests", "tokens", "two"])
def test_everything_at_once(failures, routing):
    requests = with_prefixes(impatient(chained(stream(60, 60.0, output=40))), prompts=5)
    slow = check(
        Grouped(drafts=3, kv=TIGHT, replicas=2, group=2, routing=routing, failures=failures, prefix=True, max_seqs=8),
        requests,
    )
    assert max(slow["cancelled"]) > 0


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("scheduler", [ChunkedPrefill, PrefillFirst, StaticBatch])
@pytest.mark.parametrize(
    "length",
    [None, MostTokens(most=4), TableByBatch(ranges=[[1, 3, 4], [4, 64, 1]]), Oracle(most=4)],
    ids=["no SD", "most tokens", "table", "oracle"],
)
def test_engines(ahead, scheduler, length):
    requests = impatient(chained(stream(30, 60.0, output=30), at_once=0.5))
    check(Grouped(ahead=ahead, scheduler=scheduler, length=length, group=3, max_seqs=6, budget=512), requests)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    rate=st.floats(0.5, 200.0),
    length=st.sampled_from([None, MostTokens(most=4), Oracle(most=4)]),
    ahead=st.sampled_from([0, 1]),
    scheduler=st.sampled_from([ChunkedPrefill, PrefillFirst]),
    replicas=st.integers(1, 2),
    group=st.integers(1, 4),
    blocks=st.integers(80, 400),
    max_seqs=st.integers(1, 24),
    failures=st.sampled_from([None, OFTEN]),
    concurrency=st.sampled_from([0, 0, 1, 9]),
    cap=st.integers(1, 64),
)
def test_anything(
    seed, n, rate, length, ahead, scheduler, replicas, group, blocks, max_seqs, failures, concurrency, cap
):  # fmt: skip
    requests = stream(n, rate, seed=seed, prompt=200, output=40, concurrency=concurrency)
    requests.prompt_tokens[:] = np.minimum(requests.prompt_tokens, blocks * 16 - 332)
    requests.output_tokens[:] = np.minimum(requests.output_tokens, 250)
    requests = with_prefixes(impatient(requests, seed), prompts=4, seed=seed)
    if not concurrency:
        requests = chained(requests, seed)
    deployment = Grouped(
        length=length, ahead=ahead, scheduler=scheduler, replicas=replicas, group=group, max_seqs=max_seqs, seed=seed,
        failures=failures, prefix=True, kv=KvLayout(blocks, 16),
    )  # fmt: skip
    check(deployment, requests, caps=(1, cap, 4096))


def test_simultaneous_arrivals_spread_over_the_ranks():
    requests = stream(64, 1.0)
    requests.arrival_s[:] = 0.0
    recorder = Grouped(group=4).run(requests)
    assert np.bincount(recorder.replica).tolist() == [16, 16, 16, 16]


def test_a_group_of_one_waits_for_nobody():
    requests = stream(80, 20.0)
    one = Grouped(group=1)
    assert replace(one).run(requests).finish == replace(one).run(requests, 3).finish
