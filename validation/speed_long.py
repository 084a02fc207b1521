"""Long runs: a million requests in a process of its own, its CPU time and memory beside those of a tenth of it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from time import process_time

from sim import compose, simulate
from validation.build import SPEED_SUITE
from validation.checks import Check

REQUESTS, TENTH = 1_000_000, 100_000
CASE = "1,000,000 requests, 128/s, SD on MoE"


@dataclass(frozen=True, slots=True)
class Long:
    """One long run.

    Attributes:
        seconds: CPU time of the simulation and its summary.
        peak_gb: most memory of the process.
    """

    seconds: float
    peak_gb: float


def checks() -> list[Check]:
    """Seconds, gigabytes, and time per request over that of the shorter run."""
    whole, tenth = in_own_process(REQUESTS), in_own_process(TENTH)
    growth = whole.seconds / REQUESTS / (tenth.seconds / TENTH)
    return [
        _check("seconds", whole.seconds, 80.0, 40.0, "simulation and summary, one core"),
        _check("peak_gb", whole.peak_gb, 0.8, 0.6, "of the whole process, summary included"),
        _check("time_per_request_over_shorter_run", growth, 1.1, None, f"against {TENTH:,} requests"),
    ]


def in_own_process(requests: int) -> Long:
    """Run so many requests in another process, so that its peak of memory is its own."""
    command = [sys.executable, "-m", "validation.speed_long", str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Long(**json.loads(done.stdout))


def run(requests: int) -> Long:
    """Run them here."""
    experiment = compose(
        "model=qwen3_30b_a3b", "cluster=h200", "cluster.replicas=64", "workload.rate_per_s=128",
        f"workload.num_requests={requests}", "keep_steps=false",
    )[-1]  # fmt: skip
    stream = experiment.workload.requests(experiment.seed)
    start = process_time()
    simulate(experiment, stream).summary()
    per_gb = 1e9 if sys.platform == "darwin" else 1e6
    return Long(process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_gb)


def _check(metric: str, value: float, bar: float, goal: float | None, note: str) -> Check:
    return Check(suite=SPEED_SUITE, case=CASE, metric=metric, value=value, bar=bar, goal=goal, n=REQUESTS, note=note)


if __name__ == "__main__":
    long = run(int(sys.argv[1]))
    print(json.dumps({"seconds": long.seconds, "peak_gb": long.peak_gb}))
