"""Blocks equal single steps with chains, cancellation, failures and every router, and nothing is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.draws import key
from sim.metrics.record import NOT_YET, Recorder
from sim.serving.chunked import ChunkedPrefill, PriorityClasses
from sim.serving.clock import Clock
from sim.serving.ending import run_to_end
from sim.serving.failures import Failures, PlannedFailures, RandomFailures
from sim.serving.fleet import ReplicaFleet
from sim.serving.kv import KvLayout
from sim.serving.prefill_first import PrefillFirst, StaticBatch
from sim.serving.router import LeastRequests, LeastTokens, PowerOfTwo, PrefixAware, Random, RoundRobin, Router
from sim.speculation.batch_length import MostTokens, TableByBatch
from sim.speculation.request_length import Oracle
from tests.serving import reference
from tests.serving.engine import Deployment, stream, with_prefixes
from tests.serving.test_exact_blocks import ROOMY, TIGHT
from tests.serving.test_routers import PlainFleet

ROUTERS = {
    "robin": RoundRobin(),
    "requests": LeastRequests(),
    "random": Random(),
    "two": PowerOfTwo(),
    "tokens": LeastTokens(),
    "prefix": PrefixAware(threshold=0.1, most_ahead=6),
}
ONCE = PlannedFailures(outages_s=[[0, 1.5, 0.7], [1, 1.9, 1.0], [0, 3.0, 0.5]])
OFTEN = RandomFailures(mean_up_s=0.8, down_s=0.15, most_retries=2, keep_tokens=False, retry_after_s=0.1)


@dataclass
class Fleet(Deployment):
    """A deployment whose replicas fail, under any router."""

    routing: Router = field(default_factory=LeastRequests)
    failures: Failures | None = None

    def run(self, requests, max_block_steps=4096):
        env = Clock()
        recorder = Recorder(len(requests), keep_steps=True)
        rank = self.rank_maker(requests, recorder, max_block_steps)
        ranks = [rank(number) for number in range(self.replicas)]
        options = {"seed": self.seed, "failures": self.failures, "spare": rank}
        self.fleet = ReplicaFleet(env, ranks, self.routing, requests, recorder, **options)
        assert run_to_end(env, self.fleet, recorder)
        return recorder

    def single_steps(self, requests):
        rank = self.reference_maker(requests)
        ranks = [rank() for _ in range(self.replicas)]
        failures, outages = self.failures, []
        if failures is not None:
            outages = [failures.outages(number, key(self.seed, "failures")) for number in range(self.replicas)]

        def route(number, request, attempt, up, loads):
            return PlainFleet(self.seed, requests, up, loads).choose(self.routing, number, request, attempt)

        reference.simulate(
            requests, ranks, None, route=route, failures=failures, outages=outages, fresh=rank,
            place=_by_priority(requests) if self.scheduler is PriorityClasses else list.append,
        )  # fmt: skip
        return ranks[0].log


COLUMNS = (
    "arrival", "first_token", "finish", "cancelled", "lost", "retries", "wasted", "preemptions", "rounds", "accepted",
    "drafted",
)  # fmt: skip
REFERENCE_NAMES = {"arrival": "sent", "first_token": "first"}


def _by_priority(requests):
    def place(waiting, seq):
        at = len(waiting)
        while at and requests.priority[waiting[at - 1].request] > requests.priority[seq.request]:
            at -= 1
        waiting.insert(at, seq)

    return place


def chained(requests, seed=0, share=0.6, at_once=0.3):
    """Most requests follow an earlier one, some of them without thinking."""
    rng = np.random.default_rng(seed)
    n = len(requests)
    after = np.where(rng.random(n) < share, np.floor(rng.random(n) * np.arange(n)), -1).astype(np.int64)
    after[0] = -1
    think = np.where(rng.random(n) < at_once, 0.0, rng.exponential(0.2, n))
    return replace(requests, after=after, think_s=np.where(after < 0, 0.0, think))


def impatient(requests, seed=0, share=0.4, mean_s=0.6):
    rng = np.random.default_rng(seed)
    n = len(requests)
    return replace(requests, cancel_s=np.where(rng.random(n) < share, rng.exponential(mean_s, n) + 1e-9, np.inf))


def check(deployment, requests, caps=(1, 7, 4096)):
    """Equal to the reference, and the laws of conservation."""
    slow = deployment.single_steps(requests)
    engine_only = []
    for cap in caps:
        fast = deployment.run(requests, cap)
        engine_only.append((fast.admitted, fast.replica, fast.hit_tokens, fast.outages))
        assert engine_only[0] == engine_only[-1], cap
        assert int(fast.blocks()["steps"].sum()) == slow["steps"], cap
        for name in COLUMNS[: None if deployment.most else -2]:
            assert list(getattr(fast, name)) == slow[REFERENCE_NAMES.get(name, name)], (name, cap)
        conserves(deployment, requests, fast)
    return slow


def conserves(deployment, requests, recorder):
    ends = np.array([recorder.finish, recorder.cancelled, recorder.lost])
    assert ((ends != NOT_YET).sum(axis=0) == 1).all(), "every request ends exactly once"
    finished = np.array(recorder.finish) != NOT_YET
    blocks = recorder.blocks()
    emitted, wasted = int(blocks["emitted_tokens"].sum()), sum(recorder.wasted)
    assert emitted == int(requests.output_tokens[finished].sum()) + wasted, "tokens are conserved"
    assert not any(deployment.fleet.loads)
    for replica in deployment.fleet.replicas:
        for rank in replica.rank.ranks:
            assert len(rank) == rank.batch.blocks == rank.batch.most_blocks == rank.pool.shared == 0, "blocks come back"
        assert not deployment.routing.counts_tokens or replica.tokens_at(int(blocks["end"].max())) == 0
    assert (blocks["end"] > blocks["start"]).all()
    for number in np.unique(blocks["replica"]):
        own = blocks["replica"] == number
        assert (blocks["start"][own][1:] >= blocks["end"][own][:-1]).all(), "time never runs back"
    assert (ends.max(axis=0) >= np.array(recorder.arrival)).all()
    assert int(blocks["steps"].sum()) == len(recorder.step_ticks())


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("kv", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("failures", [None, ONCE, OFTEN], ids=["", "once", "often"])
@pytest.mark.parametrize("routing", ROUTERS.values(), ids=ROUTERS)
def test_everything_at_once(drafts, kv, failures, routing):
    requests = with_prefixes(impatient(chained(stream(90, 40.0))), prompts=5)
    deployment = Fleet(drafts=drafts, kv=kv, replicas=3, routing=routing, failures=failures, prefix=True, max_seqs=16)
    slow = check(deployment, requests)
    assert max(slow["cancelled"]) > 0
    assert failures is None or sum(slow["retries"]) > 0


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("scheduler", [ChunkedPrefill, PrefillFirst, StaticBatch, PriorityClasses])
@pytest.mark.parametrize(
    "length",
    [None, MostTokens(most=4), TableByBatch(ranges=[[1, 3, 4], [4, 64, 1]]), Oracle(most=4)],
    ids=["no SD", "most tokens", "table", "oracle"],
)
def test_engines(ahead, scheduler, length):
    requests = impatient(chained(stream(70, 30.0), at_once=0.5))
    requests = replace(requests, priority=np.arange(70) % 3)
    check(
        Fleet(ahead=ahead, scheduler=scheduler, length=length, replicas=2, failures=OFTEN, max_seqs=6, budget=512),
        requests,
    )


@pytest.mark.parametrize("routing", ROUTERS.values(), ids=ROUTERS)
def test_closed_loop_with_failures(routing):
    requests = with_prefixes(impatient(stream(100, 30.0, concurrency=20)), prompts=3)
    failing = PlannedFailures(outages_s=[[0, 1.0, 0.2], [1, 1.1, 0.4]], most_retries=0)
    slow = check(Fleet(routing=routing, replicas=2, failures=failing, prefix=True, kv=TIGHT), requests)
    assert max(slow["lost"]) > 0


def test_simultaneous_events_have_one_order():
    """Identical requests at whole steps: ends, arrivals, cancellations and failures fall on the same ticks."""
    requests = stream(60, 40.0)
    requests.arrival_s[:] = np.floor(requests.arrival_s * 4) / 4
    requests.prompt_tokens[:] = 64
    requests.output_tokens[:] = 5 + np.arange(60) % 2 * 20
    requests = chained(requests, at_once=1.0)
    plain = Fleet(replicas=3, routing=LeastTokens()).run(requests)
    ends = np.array(plain.finish)
    cancel = np.where(np.arange(60) % 3 == 0, (ends[::-1] - np.array(plain.arrival)) / 1e12, np.inf)
    requests = replace(requests, cancel_s=np.where(cancel > 0, cancel, np.inf))
    dies = float(np.sort(ends)[25]) / 1e12
    failing = PlannedFailures(outages_s=[[0, dies, 0.1], [1, dies, 0.1]])
    for routing in ROUTERS.values():
        streamed = with_prefixes(requests, prompts=2)
        check(Fleet(replicas=3, routing=routing, failures=failing, prefix=True), streamed)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    rate=st.floats(0.5, 200.0),
    length=st.sampled_from([None, MostTokens(most=4), Oracle(most=4)]),
    ahead=st.sampled_from([0, 1]),
    scheduler=st.sampled_from([ChunkedPrefill, PrefillFirst, StaticBatch]),
    routing=st.sampled_from(list(ROUTERS.values())),
    replicas=st.integers(1, 4),
    blocks=st.integers(80, 400),
    max_seqs=st.integers(1, 24),
    mean_up_s=st.floats(0.05, 5.0),
    down_s=st.floats(0.001, 1.0),
    most_retries=st.integers(1, 4),
    keep_tokens=st.booleans(),
    retry_after_s=st.sampled_from([0.0, 0.05]),
    concurrency=st.sampled_from([0, 0, 1, 9]),
    patience_s=st.sampled_from([0.05, 1.0]),
    cap=st.integers(1, 64),
)
def test_anything(
    seed, n, rate, length, ahead, scheduler, routing, replicas, blocks, max_seqs, mean_up_s, down_s, most_retries,
    keep_tokens, retry_after_s, concurrency, patience_s, cap,
):  # fmt: skip
    requests = stream(n, rate, seed=seed, prompt=200, output=40, concurrency=concurrency)
    requests.prompt_tokens[:] = np.minimum(requests.prompt_tokens, blocks * 16 - 332)
    requests.output_tokens[:] = np.minimum(requests.output_tokens, 250)
    requests = with_prefixes(impatient(requests, seed, mean_s=patience_s), prompts=4, seed=seed)
    if not concurrency:
        requests = chained(requests, seed)
    failures = RandomFailures(
        mean_up_s=mean_up_s, down_s=down_s, most_retries=most_retries, keep_tokens=keep_tokens,
        retry_after_s=retry_after_s,
    )  # fmt: skip
    deployment = Fleet(
        length=length, ahead=ahead, scheduler=scheduler, routing=routing, replicas=replicas, max_seqs=max_seqs,
        seed=seed, failures=failures, prefix=True, kv=KvLayout(blocks, 16),
    )  # fmt: skip
    check(deployment, requests, caps=(1, cap, 4096))
