"""Real deployments with expert parallelism (`aiconfigurator/e2e_silicon_sample`): means of closed loops, random tokens.

Blind: fitted kernels, engine preset and memory as they are; nothing was fitted on any of these runs.

* MiniMax-M2.5 in fp8 on four H100, vLLM 0.18, TP 4 x EP 4, no DP attention. The table holds every case twice, the later
  ones as "tp 4, attention dp 4, ep 16", which four GPUs cannot be: their means are those of the first, but for noise,
  and their names say tp4_ep4. They are left out.
* DeepSeek-R1 in fp8 on eight H200, DP attention 8 x EP 8: the only runs with DP attention and known GPUs, but of
  TensorRT-LLM, which sends tokens all to all and holds prompts back until several ranks have one. A check of scale.

Lengths are drawn evenly from 0.8 to 1.0 of the nominal ones (InferenceMAX's `random-range-ratio`, assumed), five
requests per client where they had ten.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim import Requests, compose, simulate
from validation.checks import Check

FILE = "aiconfigurator/e2e_silicon_sample.csv.gz"
COMMON = ("speculation=off", "engine=vllm_0_19", "scheduler.prefix_caching=false", "keep_steps=false")
SHORTEST = 0.8
ROUNDS = 5
BAR = 0.10
"""Set after the figures had been seen."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment of the table by its words and its counts, and how the simulator is told of it."""

    name: str
    columns: dict[str, str]
    sizes: dict[str, int]
    overrides: tuple[str, ...]
    bar: float | None
    note: str


DEPLOYMENTS = (
    Deployment(
        "MiniMax-M2.5, H100 x4, TP 4 x EP 4",
        {"mode": "agg", "backend": "vllm", "system": "h100_sxm", "model_path": "MiniMaxAI/MiniMax-M2.5"},
        {"tp_size": 4, "attention_dp_size": 1, "moe_ep_size": 4},
        ("model=minimax_m2", "cluster=h100_x4", "cluster.expert_parallel=true"),
        BAR,
        "vLLM 0.18, blind",
    ),
    Deployment(
        "DeepSeek-R1, H200 x8, DP 8 x EP 8",
        {"mode": "agg", "backend": "trtllm", "system": "h200_sxm", "model_path": "deepseek-ai/DeepSeek-R1"},
        {"tp_size": 1, "attention_dp_size": 8, "moe_ep_size": 8},
        ("model=deepseek_v3", "cluster=h200_dp_x8"),
        None,
        "scale only: runs of TensorRT-LLM 1.1, priced as vLLM",
    ),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One closed loop: nominal lengths, clients, and the recorded means."""

    prompt_tokens: int
    output_tokens: int
    clients: int
    ttft_s: float
    tpot_s: float

    @property
    def e2e_s(self) -> float:
        """Of a request of the mean length."""
        return self.ttft_s + self.tpot_s * (self.output_tokens * (1 + SHORTEST) / 2 - 1)

    def requests(self) -> Requests:
        """As many clients, each with so many requests one after the other."""
        count, random = ROUNDS * self.clients, np.random.default_rng(0)
        prompt, output = (
            random.integers(round(SHORTEST * tokens), tokens + 1, count)
            for tokens in (self.prompt_tokens, self.output_tokens)
        )
        return Requests(
            arrival_s=np.zeros(count), prompt_tokens=prompt, output_tokens=output,
            group=np.zeros(count, dtype=np.int32), concurrency=self.clients,
        )  # fmt: skip


def checks(data: Path) -> list[Check]:
    """Relative errors of mean TPOT, E2E and TTFT over the cases of each deployment."""
    path = data / FILE
    if not path.is_file():
        return []
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    return [check for deployment in DEPLOYMENTS for check in _checks(deployment, _cases(rows, deployment))]


def _cases(rows: list[dict[str, str]], deployment: Deployment) -> list[Case]:
    named = [row for row in rows if all(row[name] == value for name, value in deployment.columns.items())]
    chosen = [row for row in named if all(float(row[name]) == size for name, size in deployment.sizes.items())]
    ranks = deployment.sizes["attention_dp_size"]
    cases = [
        Case(
            int(row["isl"]), int(row["osl"]), ranks * int(float(row["batch_size"])),
            1e-3 * float(row["silicon_ttft_ms"]), 1e-3 * float(row["silicon_tpot_ms"]),
        )
        for row in chosen
    ]  # fmt: skip
    return sorted(cases, key=lambda case: (case.prompt_tokens, case.output_tokens, case.clients))


def _checks(deployment: Deployment, cases: list[Case]) -> list[Check]:
    seen = {"tpot": [case.tpot_s for case in cases], "e2e": [case.e2e_s for case in cases],
            "ttft": [case.ttft_s for case in cases]}  # fmt: skip
    experiment = compose(*deployment.overrides, *COMMON)[0]
    summaries = [simulate(experiment, case.requests()).summary() for case in cases]
    made = []
    for name, values in seen.items():
        errors = np.array([summary[f"{name}_s"]["mean"] for summary in summaries]) / np.array(values) - 1.0
        worst = int(np.abs(errors).argmax())
        case = cases[worst]
        note = (
            f"{deployment.note}; mean over {len(cases)} loops; signed {errors.mean():+.1%}, median "
            f"{np.median(np.abs(errors)):.1%}, worst {errors[worst]:+.1%} ({case.prompt_tokens} to "
            f"{case.output_tokens} tokens, {case.clients} clients)"
        )
        made.append(
            Check(
                suite="vllm", case=deployment.name, metric=f"{name}_mean_rel_error",
                value=float(np.abs(errors).mean()), bar=None if name == "ttft" else deployment.bar, n=len(cases),
                note=note,
            )
        )  # fmt: skip
    return made
