"""The recorded vLLM 0.19 runs of `llmservingsim/vllm_e2e`, and their replay through the engine.

Settings are those of each run's `meta.json`, except where a constant below says otherwise.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.importers.llmservingsim import read_files
from sim.cost.host import Engine
from sim.cost.profile import LayerProfile
from sim.cost.profile_prices import ProfilePrices
from sim.metrics.record import Recorder
from sim.request import Requests
from sim.serving.chunked import ChunkedPrefill
from sim.serving.clock import Clock
from sim.serving.fleet import ReplicaFleet
from sim.serving.kv import KvLayout
from sim.serving.paths import Paths
from sim.serving.prefix import BlockIds
from sim.serving.rank import Rank
from sim.serving.rounds import RoundRule
from sim.serving.router import RoundRobin
from sim.serving.setup import RankSetup
from sim.serving.ticks import seconds

ROOT = "llmservingsim"
WORKLOAD = "workloads/sharegpt-llama-3.1-8b-300-sps10.jsonl.gz"
TABLES = ("dense", "per_sequence", "attention", "skew")
BLOCK_TOKENS = 16
RESERVED_BLOCKS = 1
"""vLLM's block pool keeps its first block as the null block."""

AMPLE_BLOCKS = 30_000
"""For the run whose `meta.json` has no block count (RTX PRO 6000, 96 GB): never binds, as its record shows."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Times:
    """When each of n requests was admitted, had its first and its last token; seconds on the run's clock."""

    admitted_s: Floats
    first_s: Floats
    last_s: Floats

    def take(self, rows: NDArray[Any]) -> Times:
        """Those of some requests."""
        return Times(admitted_s=self.admitted_s[rows], first_s=self.first_s[rows], last_s=self.last_s[rows])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """One row per second of a run: tokens in that second, requests running and waiting at its end, share of KV used."""

    prompt_tokens: Floats
    generated_tokens: Floats
    running: Floats
    waiting: Floats
    kv_share: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What vLLM was started with."""

    max_seqs: int
    max_batched_tokens: int
    kv_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A recorded run: what was sent, to which deployment, and what was seen."""

    gpu: str
    requests: Requests
    deployment: Deployment
    seen: Times
    series: Series


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """What the simulator made of a run."""

    times: Times
    preemptions: int
    steps: int


def read_run(data: Path, gpu: str, model: str = "Llama-3.1-8B", workload: str = WORKLOAD) -> Run:
    """The run of one GPU and model; arrivals are the recorded ones, put on the engine's clock."""
    folder = data / ROOT / "vllm_e2e" / gpu / model
    meta = json.loads((folder / "meta.json").read_text())
    rows = list(_lines(folder / "requests.jsonl.gz"))
    column = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "request_id"}
    offset = float(np.min(column["queued_ts"] - column["arrival_time"]))
    arrival = column["arrival_time"] + offset
    start = float(arrival[0])
    given, blocks = meta["engine_kwargs"], meta.get("kv_cache", {}).get("num_gpu_blocks", AMPLE_BLOCKS)
    requests = Requests(
        arrival_s=arrival - start,
        prompt_tokens=column["input_toks"].astype(np.int64),
        output_tokens=column["output_toks"].astype(np.int64),
        group=np.zeros(len(rows), dtype=np.int32),
        block_ids=prompt_blocks(data / ROOT / workload),
        block_tokens=BLOCK_TOKENS,
    )
    times = {name: column[key] - start for name, key in
             (("admitted_s", "scheduled_ts"), ("first_s", "first_token_ts"), ("last_s", "last_token_ts"))}  # fmt: skip
    return Run(
        gpu=gpu,
        requests=requests,
        deployment=Deployment(
            max_seqs=given["max_num_seqs"],
            max_batched_tokens=given["max_num_batched_tokens"],
            kv_blocks=blocks - RESERVED_BLOCKS,
        ),
        seen=Times(**times),
        series=_series(folder / "timeseries.csv"),
    )


def _series(path: Path) -> Series:
    names = ("prompt_throughput", "gen_throughput", "running", "waiting", "kv_cache_pct")
    header = path.read_text().splitlines()[0].split(",")
    table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    prompt, generated, running, waiting, percent = (table[:, header.index(name)] for name in names)
    return Series(
        prompt_tokens=prompt,
        generated_tokens=generated,
        running=running,
        waiting=waiting,
        kv_share=percent / 100.0,
    )


@lru_cache(maxsize=4)
def prompt_blocks(path: Path) -> tuple[NDArray[np.int64], ...]:
    """Ids of every prompt's full blocks; equal ids, equal tokens from the prompt's start on."""
    known: dict[tuple[int, tuple[int, ...]], int] = {}
    prompts = []
    for row in _lines(path):
        tokens, parent, ids = row["input_tok_ids"], -1, []
        for low in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            parent = known.setdefault((parent, tuple(tokens[low : low + BLOCK_TOKENS])), len(known))
            ids.append(parent)
        prompts.append(np.array(ids, dtype=np.int64))
    return tuple(prompts)


@lru_cache(maxsize=8)
def read_profile(folder: Path, layers: int) -> LayerProfile:
    """The layer profile in `folder` (one tensor-parallel degree)."""
    return LayerProfile.from_rows(read_files([folder / f"{table}.csv.gz" for table in TABLES]).rows, layers)


def serve(
    requests: Requests, deployment: Deployment, prices: ProfilePrices, engine: Engine, *, prefix_cache: bool = False
) -> Replay:
    """Serve `requests` on one rank."""
    setup = RankSetup(
        prices=prices,
        scheduler=ChunkedPrefill(
            max_seqs=deployment.max_seqs,
            max_batched_tokens=deployment.max_batched_tokens,
            whole_prompt_must_fit=True,
        ),
        kv=KvLayout(blocks=deployment.kv_blocks, block_tokens=BLOCK_TOKENS),
        planned_ahead=engine.planned_ahead,
        block_ids=BlockIds(requests, BLOCK_TOKENS) if prefix_cache else None,
    )
    recorder = Recorder(len(requests), keep_steps=False)
    paths = Paths(requests, RoundRule(), BLOCK_TOKENS, seed=0)
    env = Clock()
    ReplicaFleet(env, [Rank(0, setup, paths, recorder)], RoundRobin(), requests, recorder)
    env.run()
    admitted_s, first_s, last_s = (
        seconds(column) for column in (recorder.admitted, recorder.first_token, recorder.finish)
    )
    return Replay(
        times=Times(admitted_s=admitted_s, first_s=first_s, last_s=last_s),
        preemptions=sum(recorder.preemptions),
        steps=int(recorder.blocks()["steps"].sum()),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        yield from map(json.loads, file)
