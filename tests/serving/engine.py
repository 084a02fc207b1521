"""Runs the same small deployment through sim.serving and through the reference, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import simpy

from sim.cost.lines import Lines, cell_bounds
from sim.metrics.record import Recorder
from sim.request import Requests
from sim.serving.chunked import ChunkedPrefill
from sim.serving.fleet import ReplicaFleet
from sim.serving.kv import KvLayout
from sim.serving.paths import Paths
from sim.serving.prefix import BlockIds
from sim.serving.rank import Rank
from sim.serving.rounds import RoundRule
from sim.serving.router import LeastRequests, RoundRobin
from sim.serving.scheduler import Scheduler
from sim.serving.setup import RankSetup
from sim.speculation.acceptance import ConstantRate
from sim.speculation.length import Length, Offers, Outlook
from sim.speculation.request_length import RequestLength
from tests.serving import reference
from tests.serving.reference_rank import ReferenceRank


@dataclass
class CurvedPrices:
    """Prices that are not affine in anything, so that an error in any sum shows."""

    def __post_init__(self):
        self.lines = {}

    def _decode_s(self, tokens, context):
        return 4e-3 + 2e-5 * tokens + 4e-8 * np.asarray(context, float) ** 1.05 + 1e-4 * np.log1p(context)

    def decode(self, sequences, drafts):
        tokens = sequences * (drafts + 1)
        if tokens not in self.lines:
            self.lines[tokens] = Lines.through(cell_bounds(1 << 20), lambda c: self._decode_s(tokens, c))
        return self.lines[tokens]

    def ragged(self, sequences, at_least, context):
        drafting = sum(1e-4 * (j + 1) * count for j, count in enumerate(at_least))
        return round((float(self._decode_s(sequences + sum(at_least), context)) + drafting) * 10**12)

    def ragged_mixed(self, at_least, sequences, context, moments):
        return self.mixed(0, sequences, context, moments) + 7 * sum(at_least) + len(at_least)

    def mixed(self, drafts, sequences, context, moments):
        chunks, new, history, pairs, completed = moments
        seconds = float(self._decode_s(sequences * (drafts + 1), context)) + 1e-5 * new + 2e-9 * pairs + 1e-8 * history
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
    length: Length | None = None
    offers: Offers | None = None
    ahead: int = 0
    prefix: bool = False
    scheduler: type[Scheduler] = ChunkedPrefill

    @property
    def own(self):
        return self.length if isinstance(self.length, RequestLength) else None

    @property
    def most(self):
        return self.length.most_drafts if self.length is not None else self.drafts

    def chooser(self):
        """What decides the batch's length; prices of its own, for a policy needs some, not the true ones."""
        outlook = Outlook(
            step_s=lambda sequences, cached, drafts: 4e-3 + (3e-5 * sequences + 8e-4) * drafts + 1e-8 * cached,
            emitted=lambda drafts: ConstantRate(rate=self.rate).mean_accepted(drafts) + 1 if drafts else 1.0,
        )
        return self.length.chooser(outlook) if self.length is not None else None

    def policy(self):
        options = {"whole_prompt_must_fit": self.whole} if self.scheduler is ChunkedPrefill else {}
        return self.scheduler(max_seqs=self.max_seqs, max_batched_tokens=self.budget, **options)

    def fast(self, requests: Requests, max_block_steps: int = 4096, keep_steps: bool = True) -> Recorder:
        env = simpy.Environment(initial_time=0)
        recorder = Recorder(len(requests), keep_steps=keep_steps)
        rank = self.rank_maker(requests, recorder, max_block_steps)
        ranks = [rank(number) for number in range(self.replicas)]
        self.fleet = ReplicaFleet(
            env, ranks, LeastRequests() if self.router == "least" else RoundRobin(), requests, recorder
        )
        env.run()
        return recorder

    def rank_maker(self, requests: Requests, recorder: Recorder, max_block_steps: int):
        """Makes the rank of a replica, given its number."""
        setup, paths = self.setup_of(requests, max_block_steps)
        return lambda number: Rank(number, setup, paths, recorder)

    def setup_of(self, requests: Requests, max_block_steps: int) -> tuple[RankSetup, Paths]:
        """What the ranks share."""
        acceptance = ConstantRate(rate=self.rate)
        rule = RoundRule(
            acceptance=acceptance if self.most else None,
            lookahead_tokens=self.kv.lookahead_tokens,
            request_length=self.own,
            offers=self.offers,
            trailing_rounds=self.ahead if self.most else 0,
        )
        paths = Paths(requests, rule, self.kv.block_tokens, self.seed)
        scheduler = self.policy()
        scheduler.check(self.most + 1)
        setup = RankSetup(
            prices=CurvedPrices(),
            scheduler=scheduler,
            kv=self.kv,
            drafts=self.most,
            chooser=None if self.chooser() is None else self.chooser,
            max_block_steps=max_block_steps,
            planned_ahead=self.ahead,
            block_ids=BlockIds(requests, self.kv.block_tokens) if self.prefix else None,
        )
        return setup, paths

    def slow(self, requests: Requests) -> dict:
        rank = self.reference_maker(requests)
        ranks = [rank() for _ in range(self.replicas)]

        def choose(sent, loads):
            return loads.index(min(loads)) if self.router == "least" else sent % len(loads)

        reference.simulate(requests, ranks, choose)
        return ranks[0].log

    def reference_maker(self, requests: Requests):
        """Makes reference ranks that share one log."""
        return self.reference_class_maker(requests, ReferenceRank)

    def reference_class_maker(self, requests: Requests, kind: type[ReferenceRank]):
        """The same of another kind."""
        n = len(requests)
        log = {"first": [-1] * n, "finish": [-1] * n, "steps": 0}
        log |= {name: [0] * n for name in ("rounds", "accepted", "drafted", "preemptions")}
        acceptance = ConstantRate(rate=self.rate)
        prices = CurvedPrices()
        return lambda: kind(
            prices,
            acceptance if self.most else None,
            self.most,
            self.kv,
            self.max_seqs,
            self.budget,
            self.whole or not self.policy().mixes,
            self.seed,
            log,
            self.chooser(),
            self.own,
            self.offers,
            self.ahead,
            mixes=self.policy().mixes,
            static=self.scheduler.__name__ == "StaticBatch",
            block_ids=BlockIds(requests, self.kv.block_tokens) if self.prefix else None,
        )


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


def with_prefixes(requests: Requests, prompts: int, block_tokens: int = 32, seed: int = 0) -> Requests:
    """The same stream, every request behind one of a few system prompts of 2 to 12 blocks, which its prompt holds."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, prompts, len(requests))
    blocks = []
    for request, (choice, tokens) in enumerate(zip(which, requests.prompt_tokens, strict=True)):
        shared = np.arange(2 + choice % 11) + 1000 * choice
        own = 10**6 + 1000 * request + np.arange(-(-int(tokens) // block_tokens))
        blocks.append(np.concatenate((shared, own[len(shared) :]))[: len(own)].astype(np.int64))
    return replace(requests, block_ids=tuple(blocks), block_tokens=block_tokens)
