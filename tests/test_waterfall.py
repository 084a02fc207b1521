"""The waterfall: its bars multiply to the speedup, and each is 1 where its cause is absent."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sim import ChunkedPrefill, ConstantRate, Fixed, Speculation, simulate
from sim.cost.causes import CAUSES, extra_seconds, plain_cost
from sim.cost.shape import StepShape
from sim.job import Comparison
from sim.metrics.summary import speedup
from sim.run import cost_at, step_cost
from sim.serving.prefill_first import StaticBatch
from sim.speculation.batch_length import TableByBatch
from sim.speculation.draft import DraftModel
from sim.speculation.eagle import Eagle
from sim.speculation.ngram import NGram
from sim.waterfall import BARS, waterfall
from tests.deployments import experiment, workload

MOE, DENSE = "qwen3_30b_a3b", "qwen3_8b"
SMALL = ChunkedPrefill(max_batched_tokens=1024, max_seqs=32)
DRAFTERS = {
    "draft model": DraftModel(model="qwen3_0_6b"),
    "eagle": Eagle(vocab=32000),
    "tree": Eagle(vocab=32000, top_k=3, nodes=6),
    "lookup": NGram(match_rate=0.6),
}


def pair(model=MOE, drafter=DRAFTERS["draft model"], length=None, rate=0.7, **changes):
    """Results of the same 40 requests without and with SD."""
    speculation = Speculation(drafter=drafter, length=length or Fixed(drafts=3), acceptance=ConstantRate(rate=rate))
    base = experiment(model, **{"workload": workload(40, 12.0, 300, 50), "scheduler": SMALL} | changes)
    return tuple(simulate(replace(base, speculation=chosen)) for chosen in (None, speculation))


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    model=st.sampled_from([MOE, DENSE]),
    drafter=st.sampled_from(sorted(DRAFTERS)),
    drafts=st.integers(1, 6),
    rate=st.floats(0.0, 1.0),
    per_s=st.floats(1.0, 200.0),
    seed=st.integers(0, 99),
)
def test_the_bars_multiply_to_the_speedup(model, drafter, drafts, rate, per_s, seed):
    plain, speculated = pair(
        model, DRAFTERS[drafter], Fixed(drafts=drafts), rate, workload=workload(30, per_s, 200, 30), seed=seed
    )
    found = waterfall(plain, speculated)
    assert tuple(found.factors) == BARS
    assert found.ideal == drafts + 1
    achieved = speedup(plain.summary(), speculated.summary())["tpot"]
    assert found.speedup == pytest.approx(achieved, rel=1e-9)
    assert found.ideal * np.prod(list(found.factors.values())) == pytest.approx(achieved, rel=1e-9)
    # Only padding to another graph, and what is simulated anew, can help a round.
    # Padding to another graph, prompts in steps that load all experts anyway, and other batches can help.
    may_help = {"host and graphs", "prompts", "batching and KV"}
    for name, factor in found.factors.items():
        assert factor > 0, name
        assert factor <= 1 + 1e-9 or name in may_help, name


def test_a_free_drafter_has_no_draft_bar():
    found = waterfall(*pair(drafter=NGram(match_rate=1.0, host_s=0.0, sequence_host_s=0.0)))
    assert found.factors["draft"] == 1.0
    assert waterfall(*pair(drafter=NGram(match_rate=1.0))).factors["draft"] < 1.0


def test_perfect_acceptance_has_no_acceptance_bar():
    assert waterfall(*pair(rate=1.0)).factors["acceptance"] == pytest.approx(1.0, abs=1e-12)
    none = waterfall(*pair(rate=0.0)).factors
    assert none["acceptance"] == pytest.approx(1 / 4, abs=1e-12)
    assert none["drafts past the end"] == pytest.approx(1.0, abs=1e-12)


def test_a_dense_model_loads_no_experts():
    assert waterfall(*pair(DENSE)).factors["verify: expert loads"] == 1.0
    assert waterfall(*pair(MOE)).factors["verify: expert loads"] < 0.95


def test_prompts_cost_nothing_where_none_comes_between():
    """One static batch: all prompts are through before the first round."""
    base = workload(8, 1.0, 100, 40)
    batch = replace(base, arrival="batch", rate_per_s=None)
    found = waterfall(*pair(workload=batch, scheduler=StaticBatch(max_batched_tokens=4096, max_seqs=8)))
    assert found.factors["prompts"] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("model", [MOE, DENSE])
def test_causes_add_up_to_the_round(model):
    speculation = Speculation(
        drafter=DRAFTERS["draft model"], length=Fixed(drafts=5), acceptance=ConstantRate(rate=0.5)
    )
    described = experiment(model, speculation=speculation)
    batches = np.array([1, 3, 9, 40, 300])
    full = step_cost(described)
    for drafts in (0, 1, 5):
        cost = cost_at(described, full, drafts)
        causes = extra_seconds(cost, batches, 400 * batches, cost.width)
        assert tuple(causes) == CAUSES
        shape = StepShape(sequences=batches, context_tokens=400 * batches)
        plain_s = plain_cost(cost).seconds(shape)
        assert plain_s + sum(causes.values()) == pytest.approx(cost.seconds(replace(shape, width=cost.width)))
    assert all(np.all(causes[name] >= 0) for name in CAUSES if name != "host and graphs")


def test_more_experts_loaded_for_the_same_tokens_take_longer():
    target = step_cost(experiment(MOE)).target
    shape = StepShape(sequences=np.array([1, 8, 64, 4096]))
    factors = [target.experts_over_loads(shape, width) for width in (1, 2, 4, 8)]
    assert factors[0] == pytest.approx(1.0)
    assert all((after >= before).all() for before, after in pairwise(factors))
    assert factors[-1][-1] == pytest.approx(1.0, abs=1e-6), "all experts are loaded at any width"
    assert step_cost(experiment(DENSE)).target.experts_over_loads(shape, 4) == pytest.approx(1.0)


def test_a_length_that_changes_with_the_batch_is_explained_too():
    table = TableByBatch(ranges=[[1, 4, 4], [5, 32, 1]])
    plain, speculated = pair(length=table)
    found = waterfall(plain, speculated)
    assert 2 < found.ideal < 5
    assert found.speedup == pytest.approx(speedup(plain.summary(), speculated.summary())["tpot"], rel=1e-9)


def test_nothing_is_explained_where_there_is_nothing_to_compare():
    plain, speculated = pair()
    fewer = replace(plain, requests=plain.requests.take(np.arange(len(plain.requests)) > 0))
    assert waterfall(fewer, speculated) is None
    assert waterfall(replace(plain, partial=True), speculated) is None


def test_the_job_says_why():
    plain, speculated = pair()
    summaries = Comparison([plain, speculated]).summaries()
    why = summaries[speculated.label]["waterfall"]
    assert why["speedup"] == pytest.approx(summaries[speculated.label]["speedup"]["tpot"], rel=1e-9)
    assert list(why["factors"]) == list(BARS)
    assert "waterfall" not in summaries[plain.label]
