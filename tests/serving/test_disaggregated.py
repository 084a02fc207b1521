"""Separate pools for prefill and decode: blocks equal single steps, and KV takes the time it must."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.draws import derive, key, uniform
from sim.metrics.record import Recorder
from sim.serving.chunked import ChunkedPrefill
from sim.serving.clock import Clock
from sim.serving.decode_rank import DecodeRank
from sim.serving.disaggregated import DisaggregatedFleet
from sim.serving.ending import run_to_end
from sim.serving.failures import RandomFailures
from sim.serving.flight import Pools
from sim.serving.kv import KvLayout
from sim.serving.prefill_first import PrefillFirst
from sim.serving.prefill_rank import PrefillRank
from sim.serving.router import LeastRequests, LeastTokens, PowerOfTwo, PrefixAware, Random, RoundRobin, Router
from sim.serving.transfer import KvTransfer
from sim.speculation.batch_length import MostTokens, TableByBatch
from sim.speculation.request_length import Oracle
from tests.serving.engine import stream, with_prefixes
from tests.serving.reference_pool_ranks import Receiver, Sender
from tests.serving.reference_pools import ReferencePools
from tests.serving.reference_rank import Seq
from tests.serving.test_exact_blocks import ROOMY, TIGHT
from tests.serving.test_fleet import Fleet, chained, check, impatient
from tests.serving.test_policies_exact import matches
from tests.serving.test_routers import PlainFleet

FAST = KvTransfer(block_tokens=16, block_bytes=2e6, bytes_per_s=5e10, latency_s=1e-5)
SLOW = replace(FAST, bytes_per_s=1e9, windows=((500.0, 128),), state_bytes=1e5)
LAYERED = replace(SLOW, layers=32)
LINKS = {"fast": FAST, "slow": SLOW, "layered": LAYERED}
ROUTERS = [(LeastRequests(), LeastTokens()), (RoundRobin(), PowerOfTwo()), (PrefixAware(threshold=0.1), Random())]
OFTEN = RandomFailures(mean_up_s=0.8, down_s=0.15, most_retries=2, keep_tokens=False, retry_after_s=0.1)
KEEPING = RandomFailures(mean_up_s=0.5, down_s=0.3, most_retries=9)


class PrefillView(PlainFleet):
    """Answers from reference senders; what a request had out is part of its prefill."""

    def __init__(self, seed, requests, ranks, loads, kept):
        super().__init__(seed, requests, ranks, loads)
        self.kept = kept

    def prefix_hits_at(self, time, sequence):
        target = sequence.prompt_tokens + self.kept.get(sequence.request, 0)
        seq = Seq(sequence.request, sequence.prompt_tokens, sequence.output_tokens, target=target)
        return [rank.hits(seq) * rank.kv.block_tokens for rank in self.ranks]


class DecodeView(PlainFleet):
    """Answers from reference receivers."""

    def tokens_at(self, time):
        return [sum(s.prompt + s.emitted for s in rank.everyone() if not s.gone) for rank in self.ranks]

    def draws(self, arrival, count):
        own = derive(derive(key(self.seed, "decode router"), arrival.sequence.request), arrival.attempt)
        return [float(uniform(derive(own, i))) for i in range(count)]


def draft_ticks(contexts):
    """What a draft model takes to compute its own KV, and not in a straight line."""
    return 10**9 + sum(10**6 * tokens + 300 * tokens**2 for tokens in contexts)


@dataclass
class Pooled(Fleet):
    """`replicas` replicas prefill, `decoders` decode."""

    decoders: int = 2
    transfer: KvTransfer = FAST
    decode_routing: Router = field(default_factory=LeastRequests)
    prefill_kv: KvLayout | None = None
    recompute: object = None

    def ranks(self, requests, recorder, max_block_steps):
        setup, paths = self.setup_of(requests, max_block_steps)
        sender, receiver = replace(setup, kv=self.prefill_kv or setup.kv), replace(setup, block_ids=None)

        def rank(number):
            if number < self.replicas:
                return PrefillRank(number, sender, paths, recorder)
            return DecodeRank(number, receiver, paths, recorder, self.recompute)

        return rank

    def run(self, requests, max_block_steps=4096):
        env, recorder = Clock(), Recorder(len(requests), keep_steps=True)
        rank = self.ranks(requests, recorder, max_block_steps)
        ranks = [rank(number) for number in range(self.replicas + self.decoders)]
        pools = Pools(
            prefill=ranks[: self.replicas], decode=ranks[self.replicas :], prefill_router=self.routing,
            decode_router=self.decode_routing, transfer=self.transfer,
        )  # fmt: skip
        options = {"seed": self.seed, "failures": self.failures, "spare": rank}
        self.fleet = DisaggregatedFleet(env, pools, requests, recorder, **options)
        assert run_to_end(env, self.fleet, recorder)
        assert not any(replica.rank.pool.set_aside for replica in self.fleet.replicas), "what was set aside comes back"
        return recorder

    def single_steps(self, requests):
        sender, receiver = (self.reference_class_maker(requests, kind) for kind in (Sender, Receiver))
        senders, receivers = [sender() for _ in range(self.replicas)], [receiver() for _ in range(self.decoders)]
        log, ranks = senders[0].log, senders + receivers

        def fresh(make, **options):
            rank = make()
            rank.log = log
            for name, value in options.items():
                setattr(rank, name, value)
            return rank

        for rank in senders:
            rank.kv = self.prefill_kv or self.kv
        for rank in receivers:
            rank.log, rank.block_ids, rank.recompute = log, None, self.recompute
        outages = []
        if self.failures is not None:
            outages = [self.failures.outages(number, key(self.seed, "failures")) for number in range(len(ranks))]

        def route(number, request, attempt, up, loads):
            return PrefillView(self.seed, requests, up, loads, fleet.kept).choose(
                self.routing, number, request, attempt
            )

        def hand(number, request, attempt, up, loads):
            return DecodeView(self.seed, requests, up, loads).choose(self.decode_routing, number, request, attempt)

        fleet = ReferencePools(
            requests, ranks, self.replicas, hand, self.transfer,
            lambda: fresh(receiver, block_ids=None, recompute=self.recompute), route=route, failures=self.failures,
            outages=outages, fresh=lambda: fresh(sender, kv=self.prefill_kv or self.kv),
        )  # fmt: skip
        fleet.run()
        return log


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("kv", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize(("link", "ahead"), [("fast", 0), ("slow", 1), ("layered", 0)])
def test_equals_reference(drafts, kv, link, ahead):
    deployment = Pooled(drafts=drafts, kv=kv, transfer=LINKS[link], ahead=ahead, replicas=2, max_seqs=24)
    slow = check(deployment, stream(40, 60.0))
    if kv is TIGHT and link == "fast":
        assert sum(slow["preemptions"]) > 0


@pytest.mark.parametrize("routers", range(3), ids=["least", "robin", "prefix"])
@pytest.mark.parametrize("failures", range(3), ids=["", "often", "keeping"])
def test_everything_at_once(routers, failures):
    """Every pair of routers meets every link and every kind of failure."""
    requests = with_prefixes(impatient(chained(stream(50, 40.0))), prompts=5)
    deployment = Pooled(
        drafts=3 * (failures % 2), kv=TIGHT, prefill_kv=KvLayout(220, 16), replicas=2, decoders=3,
        routing=ROUTERS[routers][0], decode_routing=ROUTERS[routers][1], failures=(None, OFTEN, KEEPING)[failures],
        prefix=True, max_seqs=16, transfer=(FAST, SLOW, LAYERED)[(routers + failures) % 3],
    )  # fmt: skip
    slow = check(deployment, requests)
    assert max(slow["cancelled"]) > 0
    assert failures == 0 or sum(slow["retries"]) > 0


@pytest.mark.parametrize(("ahead", "scheduler"), [(0, PrefillFirst), (1, ChunkedPrefill)])
@pytest.mark.parametrize(
    "length",
    [None, MostTokens(most=4), TableByBatch(ranges=[[1, 3, 4], [4, 64, 1]]), Oracle(most=4)],
    ids=["no SD", "most tokens", "table", "oracle"],
)
def test_engines(ahead, scheduler, length):
    requests = impatient(stream(40, 30.0, concurrency=20))
    kv, link = (ROOMY, SLOW) if ahead else (TIGHT, LAYERED)
    deployment = Pooled(
        ahead=ahead, scheduler=scheduler, length=length, kv=kv, transfer=link, max_seqs=6, budget=512,
        recompute=draft_ticks if length is not None else None,
    )  # fmt: skip
    check(deployment, requests)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    rate=st.floats(0.5, 200.0),
    length=st.sampled_from([None, MostTokens(most=4), Oracle(most=4)]),
    offers=st.sampled_from([None, matches]),
    ahead=st.sampled_from([0, 1]),
    scheduler=st.sampled_from([ChunkedPrefill, PrefillFirst]),
    routers=st.sampled_from(ROUTERS),
    replicas=st.integers(1, 3),
    decoders=st.integers(1, 3),
    blocks=st.integers(80, 300),
    prefill_blocks=st.integers(80, 300),
    max_seqs=st.integers(1, 24),
    failures=st.sampled_from([None, OFTEN, KEEPING]),
    concurrency=st.sampled_from([0, 0, 1, 9]),
    bytes_per_s=st.floats(1e8, 1e11),
    layers=st.sampled_from([1, 1, 16]),
    cap=st.integers(1, 64),
)
def test_anything(
    seed, n, rate, length, offers, ahead, scheduler, routers, replicas, decoders, blocks, prefill_blocks, max_seqs,
    failures, concurrency, bytes_per_s, layers, cap,
):  # fmt: skip
    requests = stream(n, rate, seed=seed, prompt=200, output=40, concurrency=concurrency)
    room = min(blocks, prefill_blocks) * 16 - 332
    requests.prompt_tokens[:] = np.minimum(requests.prompt_tokens, room)
    requests.output_tokens[:] = np.minimum(requests.output_tokens, 250)
    requests = with_prefixes(impatient(requests, seed, mean_s=0.5), prompts=4, seed=seed)
    if not concurrency:
        requests = chained(requests, seed)
    deployment = Pooled(
        length=length, offers=offers if length is None else None, drafts=3 * (length is None), ahead=ahead,
        scheduler=scheduler, routing=routers[0], decode_routing=routers[1], replicas=replicas, decoders=decoders,
        max_seqs=max_seqs, seed=seed, failures=failures, prefix=True, kv=KvLayout(blocks, 16),
        prefill_kv=KvLayout(prefill_blocks, 16), transfer=replace(FAST, bytes_per_s=bytes_per_s, layers=layers),
    )  # fmt: skip
    check(deployment, requests, caps=(1, cap, 4096))
