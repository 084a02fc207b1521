"""Pipeline stages: equal to the reference, and what a pipeline must do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.cost.pipeline_times import stage_layers
from sim.metrics.record import Recorder
from sim.serving.clock import Clock
from sim.serving.ending import run_to_end
from sim.serving.fleet import ReplicaFleet
from sim.serving.kv import KvLayout
from sim.serving.pipeline import Pipeline
from sim.serving.router import LeastRequests
from tests.serving.engine import CurvedPrices, Deployment, stream, with_prefixes
from tests.serving.reference_pipeline import ReferencePipeline
from tests.serving.test_exact_blocks import ROOMY, TIGHT
from tests.serving.test_fleet import OFTEN, Fleet, chained, conserves, impatient


@dataclass
class CurvedStages:
    """Stages of different length, not in a straight line of anything."""

    count: int
    hop_s: float = 1e-4

    def stages(self, sequences, context_tokens, moments):
        tokens = sequences + moments[1]
        base = 2e-3 + 2e-5 * tokens + 3e-8 * context_tokens**1.05 + 2e-9 * moments[3] + 5e-5 * moments[4]
        return [round(base * (1 + 0.3 * stage) * 10**12) for stage in range(self.count)]

    def send(self, tokens):
        return round((self.hop_s + 1e-8 * tokens) * 10**12)


@dataclass
class Staged(Fleet):
    """Replicas of several stages."""

    stages: int = 2

    def rank_maker(self, requests, recorder, max_block_steps):
        setup, paths = self.setup_of(requests, 1)
        prices = CurvedStages(self.stages)
        return lambda number: Pipeline(setup, paths, recorder, number * self.stages, self.stages, prices)


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("kv", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("budget", [128, 2048])
def test_equals_reference(stages, kv, budget):
    requests = stream(150, rate_per_s=40.0)
    deployment = Staged(stages=stages, kv=kv, budget=budget, max_seqs=48)
    fast = deployment.run(requests)
    slow = ReferencePipeline(requests, CurvedStages(stages), stages, kv, 48, budget).run()
    assert list(fast.first_token) == slow.first
    assert list(fast.finish) == slow.finish
    assert list(fast.preemptions) == slow.preemptions
    assert len(fast.blocks()["start"]) == len(slow.batches)
    conserves(deployment, requests, fast)
    assert kv is ROOMY or sum(slow.preemptions) > 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    rate=st.floats(0.5, 300.0),
    stages=st.integers(1, 5),
    blocks=st.integers(80, 400),
    max_seqs=st.integers(1, 24),
    budget=st.integers(32, 1024),
)
def test_equals_reference_anywhere(seed, n, rate, stages, blocks, max_seqs, budget):
    requests = stream(n, rate, seed=seed, prompt=200, output=40)
    requests.prompt_tokens[:] = np.minimum(requests.prompt_tokens, blocks * 16 - 332)
    requests.output_tokens[:] = np.minimum(requests.output_tokens, 250)
    kv = KvLayout(blocks, 16)
    fast = Staged(stages=stages, kv=kv, budget=budget, max_seqs=max_seqs).run(requests)
    slow = ReferencePipeline(requests, CurvedStages(stages), stages, kv, max_seqs, budget).run()
    found = tuple(list(column) for column in (fast.first_token, fast.finish, fast.preemptions))
    assert found == (slow.first, slow.finish, slow.preemptions)


@pytest.mark.parametrize("failures", [None, OFTEN], ids=["", "often"])
@pytest.mark.parametrize("kv", [ROOMY, TIGHT], ids=["roomy", "tight"])
def test_clients_that_give_up_and_replicas_that_die(failures, kv):
    requests = with_prefixes(impatient(chained(stream(90, 40.0))), prompts=5)
    deployment = Staged(stages=3, replicas=2, failures=failures, prefix=True, kv=kv, max_seqs=24, budget=256)
    recorder = deployment.run(requests)
    conserves(deployment, requests, recorder)
    assert max(recorder.cancelled) > 0
    assert failures is None or sum(recorder.retries) > 0


def test_one_stage_is_no_pipeline():
    class OneStage(CurvedStages):
        """The plain engine's prices."""

        def stages(self, sequences, context_tokens, moments):
            prices = CurvedPrices()
            if not moments[0]:
                return [int(prices.decode(sequences, 0).at(context_tokens))]
            return [prices.mixed(0, sequences, context_tokens, moments)]

    requests = stream(120, 30.0)
    plain = Deployment(kv=TIGHT)
    setup, paths = plain.setup_of(requests, 1)
    recorder, env = Recorder(len(requests), keep_steps=True), Clock()
    pipeline = Pipeline(setup, paths, recorder, 0, 1, OneStage(1))
    fleet = ReplicaFleet(env, [pipeline], LeastRequests(), requests, recorder)
    assert run_to_end(env, fleet, recorder)
    assert recorder.finish == replace(plain).fast(requests).finish
    assert sum(recorder.preemptions) > 0


def test_a_long_prompt_flows_through_the_stages_in_pieces():
    """Eight pieces of one prompt through four equal stages: eleven stage times, not thirty-two."""

    class Equal(CurvedStages):
        def stages(self, sequences, context_tokens, moments):
            return [10**9] * self.count

        def send(self, tokens):
            return 0

    requests = stream(1, 1.0)
    requests.arrival_s[:], requests.prompt_tokens[:], requests.output_tokens[:] = 0.0, 800, 1
    deployment = Staged(stages=4, budget=100)
    setup, paths = deployment.setup_of(requests, 1)
    recorder, env = Recorder(1, keep_steps=True), Clock()
    fleet = ReplicaFleet(env, [Pipeline(setup, paths, recorder, 0, 4, Equal(4))], LeastRequests(), requests, recorder)
    assert run_to_end(env, fleet, recorder)
    assert list(recorder.finish) == [11 * 10**9]


def test_layers_are_dealt_as_in_vllm():
    assert stage_layers(80, 4) == [20, 20, 20, 20]
    assert stage_layers(61, 4) == [15, 15, 16, 15]
    assert stage_layers(62, 4) == [15, 16, 16, 15]
    assert stage_layers(63, 4) == [16, 16, 16, 15]
    with pytest.raises(ValueError, match="pipeline_parallel must be <= the 3 layers of the model, got 4"):
        stage_layers(3, 4)
