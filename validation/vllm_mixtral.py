"""Mixtral-8x7B on four H100s (`llmservingsim/ispass26`): a check of scale, not of accuracy.

Only means are recorded, and the version, its settings and its routing are not, so no bar is set; a match would be luck.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np

from sim import Requests, compose, simulate
from sim.serving.ticks import seconds
from validation.checks import Check
from validation.vllm_runs import ROOT

SEEN = "ispass26/latency_real_H100/SM_latency.tsv"
WORKLOAD = "workloads/ispass26_sharegpt_req300_rate10_mixtral.jsonl.gz"
OVERRIDES = ("model=mixtral_8x7b", "cluster=h100_x4", "speculation=off", "engine=vllm_0_10", "keep_steps=false")
NOTE = "scale only: fitted kernels of H100, vLLM 0.10 preset and default limits assumed, uniform routing"


def checks(data: Path) -> list[Check]:
    """Relative error of throughput, mean TTFT and mean TPOT."""
    requests = read_requests(data / ROOT / WORKLOAD)
    recorder = simulate(compose(*OVERRIDES)[-1], requests).recorder
    first_s, last_s = seconds(recorder.first_token), seconds(recorder.finish)
    longer = requests.output_tokens > 1
    priced = {
        "throughput_tok_s": float(requests.output_tokens.sum() / last_s.max()),
        "mean_ttft_ms": 1e3 * float((first_s - requests.arrival_s).mean()),
        "mean_tpot_ms": 1e3 * float(((last_s - first_s)[longer] / (requests.output_tokens[longer] - 1)).mean()),
    }
    with (data / ROOT / SEEN).open() as file:
        seen = next(row for row in csv.DictReader(file, delimiter="\t") if row["framework"] == "vLLM")
    return [
        Check(
            suite="vllm", case="Mixtral-8x7B, H100 x4", metric=f"{name}_rel_error",
            value=abs(value / float(seen[name]) - 1.0), n=len(requests),
            note=f"{value / float(seen[name]) - 1.0:+.0%} of {float(seen[name]):.1f}; {NOTE}",
        )
        for name, value in priced.items()
    ]  # fmt: skip


def read_requests(path: Path) -> Requests:
    """The stream that was sent."""
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    columns = {name: np.array([row[name] for row in rows]) for name in ("input_toks", "output_toks", "arrival_time_ns")}
    return Requests(
        arrival_s=columns["arrival_time_ns"] * 1e-9,
        prompt_tokens=columns["input_toks"].astype(np.int64),
        output_tokens=columns["output_toks"].astype(np.int64),
        group=np.zeros(len(rows), dtype=np.int32),
    )
