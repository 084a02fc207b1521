"""How fast a recorded vLLM run is replayed: priced from a layer profile, asynchronous, prefix cache, KV pressure."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import process_time

from sim.cost.host import read_engine
from validation.build import SPEED_SUITE
from validation.checks import Check
from validation.vllm import ENGINE
from validation.vllm_replay import Player
from validation.vllm_runs import ROOT

GPU = "RTX4090"
CASE = "300 ShareGPT requests, RTX 4090 replay"


def checks(data: Path | None, repeats: int) -> list[Check]:
    """Requests per second of the replay; without the data a line that says so."""
    if data is None or not (data / ROOT / "vllm_e2e").is_dir():
        note = "needs --data with llmservingsim/vllm_e2e"
        return [Check(suite=SPEED_SUITE, case=CASE, metric="skipped", value=None, note=note)]
    player = Player.of(data, GPU, read_engine(ENGINE))
    preempted, seconds = player.replay(1.0).preemptions, []
    for _ in range(repeats):
        start = process_time()
        player.replay(1.0)
        seconds.append(process_time() - start)
    n = len(player.run.requests)
    note = f"{preempted} preemptions; step prices are made anew in each replay"
    rate = n / median(seconds)
    return [
        Check(
            suite=SPEED_SUITE, case=CASE, metric="requests_per_s", value=rate, bar=3_000, goal=10_000, n=n,
            at_least=True, note=note,
        )
    ]  # fmt: skip
