"""Laws of a whole run: conservation, causality, monotonicity, repeatability."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import Cluster, InfeasibleError, Lengths, Synthetic, load_model, simulate, step_cost
from sim.cost.shape import StepShape
from tests.deployments import experiment, speculation, workload

RUNS = {
    "moe": {},
    "moe with SD": {"speculation": speculation()},
    "dense with SD": {"model": "qwen3_8b", "speculation": speculation(drafts=5)},
    "two replicas": {"cluster": Cluster(gpu="h100_sxm", replicas=2), "workload": workload(120, 12.0)},
    "tensor parallel": {"model": "qwen2_57b_a14b", "cluster": Cluster(gpu="h200_sxm", tensor_parallel=2)},
    "KV pressure": {"cluster": Cluster(gpu="h200_sxm", kv_blocks=400), "workload": workload(100, 20.0)},
    "KV pressure with SD": {
        "cluster": Cluster(gpu="h200_sxm", kv_blocks=400),
        "workload": workload(100, 20.0),
        "speculation": speculation(),
    },
    "closed loop": {
        "workload": Synthetic(
            num_requests=50,
            arrival="closed_loop",
            concurrency=8,
            prompt=Lengths(kind="fixed", tokens=300),
            output=Lengths(kind="fixed", tokens=40),
        ),
        "speculation": speculation(),
    },
}


@pytest.fixture(scope="module", params=RUNS, ids=list(RUNS))
def result(request):
    return simulate(experiment(**RUNS[request.param]))


def test_every_request_ends_exactly_once_and_in_order_of_its_life(result):
    frame = result.requests_frame()
    assert len(frame) == len(result.requests)
    assert frame[["arrival_s", "admitted_s", "first_token_s", "finish_s"]].notna().all().all()
    assert (frame["arrival_s"] <= frame["admitted_s"]).all()
    assert (frame["admitted_s"] < frame["first_token_s"]).all()
    single = frame["output_tokens"] == 1
    assert (frame["first_token_s"] == frame["finish_s"])[single].all()
    assert (frame["first_token_s"] < frame["finish_s"])[~single].all()


def test_tokens_are_conserved(result):
    blocks, requests = result.recorder.blocks(), result.requests
    assert blocks["emitted_tokens"].sum() == requests.output_tokens.sum()
    assert blocks["prefill_tokens"].sum() >= requests.prompt_tokens.sum()
    if not sum(result.recorder.preemptions):
        assert blocks["prefill_tokens"].sum() == requests.prompt_tokens.sum()


def test_a_replica_does_one_thing_at_a_time(result):
    blocks = result.recorder.blocks()
    for replica in np.unique(blocks["replica"]):
        mine = blocks["replica"] == replica
        assert (blocks["start"][mine][1:] >= blocks["end"][mine][:-1]).all()
    assert (blocks["end"] > blocks["start"]).all()


def test_kv_stays_within_the_pool(result):
    blocks = result.recorder.blocks()
    assert blocks["kv_blocks"].max() <= result.kv.blocks
    assert blocks["kv_blocks"].min() >= 0


def test_littles_law(result):
    """Sequences in the system, by time, equal arrival rate times time in the system: exact for finished runs."""
    frame = result.requests_frame()
    events = np.concatenate([frame["arrival_s"], frame["finish_s"]])
    change = np.concatenate([np.ones(len(frame)), -np.ones(len(frame))])
    order = np.lexsort((change, events))
    held = np.cumsum(change[order])[:-1] @ np.diff(events[order])
    assert held == pytest.approx(frame["e2e_s"].sum(), rel=1e-9)


def test_steps_fill_their_blocks(result):
    frame, blocks = result.steps_frame(), result.blocks_frame()
    per_block = frame.groupby("block")["duration_s"].sum().to_numpy()
    assert per_block == pytest.approx(blocks["duration_s"].to_numpy(), rel=1e-9)
    phases = blocks[["draft_s", "verify_s", "reject_s", "prefill_s", "host_s"]]
    assert (phases >= 0).all().all()
    assert phases.sum(axis=1).to_numpy() == pytest.approx(blocks["duration_s"].to_numpy(), rel=1e-9)
    follows = frame["start_s"].to_numpy()[1:] - (frame["start_s"] + frame["duration_s"]).to_numpy()[:-1]
    within = (frame["block"].to_numpy()[1:] == frame["block"].to_numpy()[:-1]) & (len(result.requests) > 0)
    assert np.abs(follows[within]).max() < 1e-9


def test_no_step_beats_the_hardware(result):
    blocks = result.recorder.blocks()
    shape = StepShape(
        sequences=blocks["sequences"],
        width=blocks["drafts"] + 1,
        context_tokens=blocks["context_tokens"] // blocks["steps"],
        chunks=blocks["chunks"],
        prefill_tokens=blocks["prefill_tokens"],
        prefill_history_tokens=blocks["prefill_history_tokens"],
        prefill_pairs=blocks["prefill_pairs"],
        completed=blocks["completed"],
    )
    bound = result.cost.target.bounds(shape) * blocks["steps"]
    assert (bound < (blocks["end"] - blocks["start"]) * 1e-12).all()


def test_same_seed_same_bytes(result):
    again = simulate(result.experiment)
    assert again.requests_frame().equals(result.requests_frame())
    assert again.steps_frame().equals(result.steps_frame())
    assert again.summary() == result.summary()


def test_keeping_no_steps_changes_no_time(result):
    lean = simulate(replace(result.experiment, keep_steps=False))
    assert lean.recorder.finish == result.recorder.finish
    kept, means = result.summary()["itl_s"], lean.summary()["itl_s"]
    assert means["mean"] == pytest.approx(kept["mean"], rel=1e-9)
    assert means["p50"] == pytest.approx(kept["p50"], rel=0.02)


def test_zero_acceptance_is_the_cost_of_drafting_only():
    plain = simulate(experiment("qwen3_8b", workload=workload(20, 0.2)))
    futile = simulate(experiment("qwen3_8b", workload=workload(20, 0.2), speculation=speculation(3, rate=0.0)))
    assert futile.summary()["speculation"]["acceptance_length"] == 1.0
    assert futile.summary()["tpot_s"]["mean"] > plain.summary()["tpot_s"]["mean"]
    assert sum(futile.recorder.rounds) == (futile.requests.output_tokens - 1).sum()


def test_full_acceptance_emits_all_drafts():
    run = simulate(experiment("qwen3_8b", speculation=speculation(3, rate=1.0)))
    rounds = np.asarray(run.recorder.rounds)
    assert (rounds == -(-(run.requests.output_tokens - 1) // 4)).all()


def test_more_acceptance_is_never_slower():
    tpot = [
        simulate(experiment("qwen3_8b", workload=workload(20, 0.2), speculation=speculation(3, rate)))
        .summary()["tpot_s"]["mean"]
        for rate in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]  # fmt: skip
    assert tpot == sorted(tpot, reverse=True)


def test_variants_see_the_same_requests():
    plain, speculated = simulate(experiment()), simulate(experiment(speculation=speculation()))
    assert (plain.requests.prompt_tokens == speculated.requests.prompt_tokens).all()
    assert plain.recorder.arrival == speculated.recorder.arrival


def test_preemption_happens_under_pressure_and_costs_recomputation():
    tight = {"cluster": Cluster(gpu="h200_sxm", kv_blocks=400), "workload": workload(100, 20.0)}
    run = simulate(experiment(**tight))
    assert sum(run.recorder.preemptions) > 0
    assert run.recorder.blocks()["prefill_tokens"].sum() > run.requests.prompt_tokens.sum()


def test_event_counts():
    """A cheap guard of speed: blocks, not tokens, cost events."""
    plain = simulate(experiment(workload=workload(200, 2.0)))
    speculated = simulate(experiment(workload=workload(200, 2.0), speculation=speculation()))
    assert plain.events < 5.2 * 200
    assert speculated.events < 5.0 * 200
    assert plain.summary()["steps"] > 10 * plain.events / 5


def test_slower_memory_is_slower():
    fast = simulate(experiment(cluster=Cluster(gpu="h200_sxm")))
    slow = simulate(
        experiment(
            cluster=Cluster(gpu="h200_sxm", gpu_overrides={"memory_bandwidth_bytes_per_s": 2.4e12})
        )
    )  # fmt: skip
    assert slow.summary()["tpot_s"]["mean"] > 1.2 * fast.summary()["tpot_s"]["mean"]


def test_infeasible_weights_show_the_arithmetic():
    with pytest.raises(InfeasibleError, match=r"DeepSeek-V3.*leaves -.*GiB for KV"):
        simulate(experiment("deepseek_v3"))


def test_no_request_that_fits_is_infeasible():
    with pytest.raises(InfeasibleError, match="no request fits"):
        simulate(experiment(cluster=Cluster(gpu="h200_sxm", kv_blocks=1)))


def test_requests_that_never_fit_are_counted():
    run = simulate(experiment(cluster=Cluster(gpu="h200_sxm", kv_blocks=40), workload=workload(60, 1.0)))
    dropped = run.summary()["dropped"]
    assert list(dropped) == ["more KV than a replica has"]
    assert dropped["more KV than a replica has"] + len(run.requests) == 60


def test_draft_without_a_pair_is_refused():
    with pytest.raises(ValueError, match=r"speculation\.drafter\.model must be set"):
        step_cost(experiment("mixtral_8x7b", cluster=Cluster(gpu="h200_sxm"), speculation=speculation()))


def test_draft_of_another_vocabulary_is_refused():
    other = speculation()
    other = replace(other, drafter=replace(other.drafter, model="llama32_1b"))
    with pytest.raises(ValueError, match="must share the vocabulary"):
        step_cost(experiment("qwen3_8b", speculation=other))


def test_draft_takes_memory():
    alone, with_draft = simulate(experiment()), simulate(experiment(speculation=speculation()))
    draft = load_model("qwen3_0_6b", "model")
    assert with_draft.kv.block_bytes - alone.kv.block_bytes == 28 * 2 * 8 * 128 * 2 * 16
    assert draft.layer_count == 28
    assert with_draft.kv.blocks < alone.kv.blocks
