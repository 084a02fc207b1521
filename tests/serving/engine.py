"""Runs the same small deployment through sim.serving and through the reference, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simpy

from sim.cost.lines import Lines, cell_bounds
from sim.metrics.record import Recorder
from sim.request import Requests
from sim.serving.kv import KvLayout
from sim.serving.paths import Paths
from sim.serving.rank import Rank
from sim.serving.replica import ReplicaFleet
from sim.serving.router import LeastRequests, RoundRobin
from sim.serving.scheduler import ChunkedPrefill
from sim.speculation.acceptance import ConstantRate
from tests.serving import reference


@dataclass
class CurvedPrices:
    """Prices that are not affine in anything, so that an error in any sum shows."""

    width: int

    def __post_init__(self):
        self.lines = {}

    def _decode_s(self, sequences, context):
        return (
            4e-3 + 2e-5 * sequences * self.width + 4e-8 * np.asarray(context, float) ** 1.05 + 1e-4 * np.log1p(context)
        )

    def decode(self, sequences):
        if sequences not in self.lines:
            self.lines[sequences] = Lines.through(cell_bounds(1 << 20), lambda c: self._decode_s(sequences, c))
        return self.lines[sequences]

    def mixed(self, sequences, context, chunks, new, history, pairs, completed):
        seconds = float(self._decode_s(sequences, context)) + 1e-5 * new + 2e-9 * pairs + 1e-8 * history
        return round((seconds + 3e-5 * chunks + 7e-5 * completed) * 10**12)


@dataclass
class Deployment:
    """A fleet small enough to check."""

    drafts: int = 0
    rate: float = 0.7
    replicas: int = 1
    kv: KvLayout = KvLayout(blocks=10_000, block_tokens=16)
    max_seqs: int = 64
    budget: int = 2048
    whole: bool = False
    router: str = "least"
    seed: int = 0

    def fast(self, requests: Requests, max_block_steps: int = 4096, keep_steps: bool = True) -> Recorder:
        env = simpy.Environment(initial_time=0)
        recorder = Recorder(len(requests), keep_steps=keep_steps)
        acceptance = ConstantRate(rate=self.rate)
        paths = Paths(requests, acceptance, self.drafts, self.kv.lookahead_tokens, self.kv.block_tokens, self.seed)
        scheduler = ChunkedPrefill(
            max_seqs=self.max_seqs, max_batched_tokens=self.budget, whole_prompt_must_fit=self.whole
        )
        scheduler.check(self.drafts + 1)
        prices = CurvedPrices(self.drafts + 1)
        ranks = [
            Rank(i, prices, paths, scheduler, self.kv, recorder, self.drafts, max_block_steps)
            for i in range(self.replicas)
        ]
        self.fleet = ReplicaFleet(
            env, ranks, LeastRequests() if self.router == "least" else RoundRobin(), requests, recorder
        )
        env.run()
        return recorder

    def slow(self, requests: Requests) -> dict:
        n = len(requests)
        log = {"first": [-1] * n, "finish": [-1] * n, "steps": 0}
        log |= {name: [0] * n for name in ("rounds", "accepted", "preemptions")}
        acceptance = ConstantRate(rate=self.rate)
        prices = CurvedPrices(self.drafts + 1)
        ranks = [
            reference.ReferenceRank(
                prices, acceptance, self.drafts, self.kv, self.max_seqs, self.budget, self.whole, self.seed, log
            )
            for _ in range(self.replicas)
        ]

        def choose(sent, loads):
            return loads.index(min(loads)) if self.router == "least" else sent % len(loads)

        reference.simulate(requests, ranks, choose)
        return log


def stream(
    n: int, rate_per_s: float, seed: int = 0, prompt: int = 300, output: int = 60, concurrency: int = 0
) -> Requests:
    """Poisson arrivals (or a closed loop) with geometric lengths, cut where the tight pool of the tests ends."""
    rng = np.random.default_rng(seed)
    arrival = np.zeros(n) if concurrency else np.cumsum(rng.exponential(1 / rate_per_s, n))
    return Requests(
        arrival_s=arrival,
        prompt_tokens=np.minimum(1 + rng.geometric(1 / prompt, n), 1600).astype(np.int64),
        output_tokens=np.minimum(rng.geometric(1 / output, n), 700).astype(np.int64),
        group=np.zeros(n, dtype=np.int32),
        concurrency=concurrency,
    )
