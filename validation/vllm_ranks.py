"""Qwen3-30B-A3B on attention ranks with shared experts (DP x EP) of RTX PRO 6000, replayed from the layer profile.

No such run is in the data. What the simulator predicts for the workload that is (300 ShareGPT requests, the default
limits of vLLM) is printed as a prediction, and a record in `vllm_e2e/RTXPRO6000/Qwen3-30B-A3B-Instruct-2507` is judged
blind: its own settings, kernels of the profile as they are, nothing fitted.

The busiest rank's experts cost what a whole block costs with its share of the rows and its distinct experts; rows of
experts elsewhere cost their zeros at the memory bandwidth. Tokens are exchanged as in `ForwardCollectives`, with the
lines of NCCL over the PCIe of L40S: nobody measured those of this GPU.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sim.calibration.importers.llmservingsim import read_files
from sim.cost.comm import Collectives
from sim.cost.constants import exchange_over
from sim.cost.host import Engine, read_engine
from sim.cost.placement import busiest_rank
from sim.cost.profile import LayerProfile
from sim.cost.profile_lead import ExpectedLead
from sim.cost.profile_lockstep import MoeBlocks, ProfileLockstep
from sim.cost.profile_prices import ProfilePrices
from sim.cost.routing import TrainedGate
from sim.hardware import read_gpu, read_link
from sim.metrics.record import Recorder
from sim.request import Requests
from sim.serving.chunked import ChunkedPrefill
from sim.serving.clock import Clock
from sim.serving.fleet import ReplicaFleet
from sim.serving.group import RankGroup
from sim.serving.kv import KvLayout
from sim.serving.lockstep import LockstepRounds
from sim.serving.paths import Paths
from sim.serving.prefix import BlockIds
from sim.serving.rank import Rank
from sim.serving.rounds import RoundRule
from sim.serving.router import RoundRobin
from sim.serving.setup import RankSetup
from sim.serving.ticks import seconds
from validation.checks import Check
from validation.vllm_mixtral import read_requests
from validation.vllm_runs import AMPLE_BLOCKS, BLOCK_TOKENS, ROOT, TABLES, Deployment, Floats, Times, read_run

GPU, MODEL = "RTXPRO6000", "Qwen3-30B-A3B-Instruct-2507"
WORKLOAD = "workloads/sharegpt-qwen3-30b-a3b-300-sps10.jsonl.gz"
LAYERS, HIDDEN, EXPERTS, PER_TOKEN = 48, 2048, 128, 8
RANKS = 2
MAX_CONTEXT_TOKENS = 1 << 20
DEFAULTS = Deployment(max_seqs=128, max_batched_tokens=2048, kv_blocks=AMPLE_BLOCKS)
BARS = {"tpot": 0.04, "e2e": 0.05, "ttft": 0.06}
ELEMENT_BYTES = 2.0
ROUTING = TrainedGate()
"""The gate that was measured on this very model family; a replay of random weights would route evenly."""


def checks(data: Path) -> list[Check]:
    """Mean TPOT, E2E and TTFT: judged where a run was recorded, else only predicted."""
    folder = data / ROOT / "vllm_e2e" / GPU / MODEL
    engine = read_engine("vllm_0_19")
    if not folder.is_dir():
        return _predictions(data, engine)
    given = json.loads((folder / "meta.json").read_text())["engine_kwargs"]
    ranks = int(given.get("data_parallel_size", 1))
    run = read_run(data, GPU, MODEL, WORKLOAD)
    found = means(run.requests, serve(data, run.requests, run.deployment, engine, ranks))
    seen = means(run.requests, run.seen)
    return [
        Check(
            suite="vllm", case=f"{GPU}, Qwen3-30B-A3B, {ranks} ranks, blind", metric=f"{name}_mean_rel_error",
            value=abs(found[name] / value - 1.0), bar=BARS[name], n=len(run.requests),
            note=f"{found[name] / value - 1.0:+.1%} of {value:.4g} s",
        )
        for name, value in seen.items()
    ]  # fmt: skip


def means(requests: Requests, times: Times) -> dict[str, float]:
    """Mean TPOT, E2E and TTFT, seconds."""
    longer = requests.output_tokens > 1
    tpot = (times.last_s - times.first_s)[longer] / (requests.output_tokens[longer] - 1)
    return {
        "tpot": float(tpot.mean()),
        "e2e": float((times.last_s - requests.arrival_s).mean()),
        "ttft": float((times.first_s - requests.arrival_s).mean()),
    }


def prices(data: Path, requests: Requests, deployment: Deployment, engine: Engine, ranks: int) -> ProfileLockstep:
    """Step times of so many ranks that share the experts."""
    folder = data / ROOT / "profiles_v1" / GPU / "Qwen" / MODEL / "bf16" / "tp1"
    rows = read_files([folder / f"{table}.csv.gz" for table in (*TABLES, "moe")]).rows
    dense = LayerProfile.from_rows(rows[rows["op"] != "moe_block"], LAYERS)
    lead = ExpectedLead(requests.prompt_tokens, requests.output_tokens)
    one = ProfilePrices(dense, engine, LAYERS, deployment.max_batched_tokens, MAX_CONTEXT_TOKENS, 1.0, lead)
    blocks, gpu = MoeBlocks.from_rows(rows), read_gpu("rtx_pro_6000")
    link = read_link(gpu.link)
    exchange = exchange_over(link.kind)
    assert exchange is not None
    group = Collectives(exchange, link, ranks)

    def shared_s(tokens: Floats) -> Floats:
        distinct, busiest = busiest_rank(ROUTING, EXPERTS, PER_TOKEN, ranks, tokens)
        hit = np.minimum(distinct, ROUTING.of_independent(EXPERTS, PER_TOKEN, tokens))
        zeros = 2 * ELEMENT_BYTES * HIDDEN * (PER_TOKEN * tokens - busiest) / gpu.memory_bandwidth_bytes_per_s
        dispatched = tokens * ELEMENT_BYTES * (HIDDEN + EXPERTS)
        exchanged = group.all_gather(dispatched) + group.reduce_scatter(tokens * ELEMENT_BYTES * HIDDEN)
        return np.asarray(LAYERS * (blocks(busiest / PER_TOKEN, hit) + zeros + exchanged))

    return ProfileLockstep(one, shared_s, ranks)


def serve(data: Path, requests: Requests, deployment: Deployment, engine: Engine, ranks: int) -> Times:
    """Serve `requests` on one replica of so many ranks."""
    setup = RankSetup(
        prices=None,  # type: ignore[arg-type]  # the group's count
        scheduler=ChunkedPrefill(
            max_seqs=deployment.max_seqs,
            max_batched_tokens=deployment.max_batched_tokens,
            whole_prompt_must_fit=True,
        ),
        kv=KvLayout(blocks=deployment.kv_blocks, block_tokens=BLOCK_TOKENS),
        planned_ahead=engine.planned_ahead,
        block_ids=BlockIds(requests, BLOCK_TOKENS) if requests.block_ids is not None else None,
    )
    recorder, env = Recorder(len(requests), keep_steps=False), Clock()
    paths = Paths(requests, RoundRule(), BLOCK_TOKENS, seed=0)
    group = RankGroup(
        lambda number, rounds: Rank(number, setup, paths, recorder, rounds),
        lambda timeline: LockstepRounds(setup, paths, timeline),
        ranks, 0, prices(data, requests, deployment, engine, ranks), recorder,
    )  # fmt: skip
    ReplicaFleet(env, [group], RoundRobin(), requests, recorder)
    env.run()
    columns = (seconds(column) for column in (recorder.admitted, recorder.first_token, recorder.finish))
    return Times(**dict(zip(("admitted_s", "first_s", "last_s"), columns, strict=True)))


def _predictions(data: Path, engine: Engine) -> list[Check]:
    requests = read_requests(data / ROOT / WORKLOAD)
    found = means(requests, serve(data, requests, DEFAULTS, engine, RANKS))
    return [
        Check(
            suite="vllm", case=f"{GPU}, Qwen3-30B-A3B, {RANKS} ranks", metric=f"{name}_mean_predicted_s", value=value,
            n=len(requests), note="a prediction: no run with DP x EP is in the data",
        )
        for name, value in found.items()
    ]  # fmt: skip
