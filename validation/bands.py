"""How often the predicted band holds a measurement.

Judged on what nothing was fitted to: throughput of vLLM 0.19 streams on L4 and A10G, and all figures of the two
overloaded runs on RTX 4090 and RTX PRO 6000 (`validation.run_fit`, as described, nothing calibrated). Two constants
behind the bands were chosen on what others published: times per token (`measured/token_times.csv`) and speedups whose
acceptance length is known; their coverage is shown, not judged. Rows of one source share its errors: what counts is the
number of deployments, which the notes give.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from sim import load_model
from sim.bands import run_bands
from sim.compare import Measured
from sim.config import Experiment
from sim.cost.errors import family_errors
from sim.cost.host import read_engine
from sim.cost.routing import TrainedGate, Uniform
from sim.cost.shape import StepShape
from sim.metrics.bands import LEVEL, Column, interval, speedup_factors, step_factors, step_shares
from sim.run_fit.runs import simulated
from validation.checks import Check
from validation.run_fit import RUN_GPUS, SIZES, STREAM_GPUS, deployment, measured, read_stream
from validation.speculation import LLAMA_EAGLE3
from validation.speculation_predict import deployment as served_as
from validation.speculation_predict import predicted
from validation.speculation_rows import MEASURED, OVERLAP, Row, depth_of, drafter_of, left_out, read_rows
from validation.speculation_steps import Deployment
from validation.vllm_batches import DATASETS
from validation.vllm_runs import ROOT, read_run

SUITE = "bands"
LEVELS = (LEVEL, 0.9)
MOST_OFF = 0.1
"""The 80 % band should hold 70 to 90 % of the measurements."""

FITTED_ON = "`sim.cost.errors.WHOLE_STEPS` and `HOST` were chosen on these rows"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A measurement and its prediction.

    Attributes:
        deployment: what shares its errors.
        ratio: measured over predicted.
        draws: true over predicted, as the errors have it.
    """

    deployment: str
    ratio: float
    draws: Column

    def held(self, level: float) -> bool:
        """Whether the band holds it."""
        low, high = interval(self.draws, level)
        return low <= self.ratio <= high


def checks(data: Path | None) -> list[Check]:
    """Coverage by kind of figure, then of all."""
    kinds = {"time per token, published": token_cases(), "speedup, published": speedup_cases()}
    found = [check for kind, cases in kinds.items() for check in _coverage(kind, cases, f"{FITTED_ON}; ")]
    if data is None or not (data / ROOT / "vllm_e2e_forks").is_dir():
        where = "needs --data with llmservingsim/vllm_e2e and vllm_e2e_forks"
        return [*found, Check(suite=SUITE, case="judged", metric="skipped", value=None, note=where)]
    streams, runs = stream_cases(data), run_cases(data)
    kinds = {"streams, L4 and A10G": streams, "runs, RTX 4090 and PRO 6000": runs, "judged": [*streams, *runs]}
    return [*found, *(check for kind, cases in kinds.items() for check in _coverage(kind, cases))]


def token_cases() -> list[Case]:
    """Times per token at a fixed concurrency."""
    with (MEASURED / "token_times.csv").open(newline="") as file:
        return [_token_case(row) for row in csv.DictReader(file)]


def _token_case(row: dict[str, str]) -> Case:
    model = load_model(row["model"], "model")
    served = Deployment(
        model=model, gpu=row["gpu"], tensor_parallel=int(row["tensor_parallel"]), engine=read_engine("vllm_0_10"),
        kernels="vllm", routing=TrainedGate(overlap=OVERLAP) if model.is_moe else Uniform(),
        prompt_tokens=int(row["prompt_tokens"]), output_tokens=int(row["output_tokens"]),
    )  # fmt: skip
    batch = float(row["concurrency"])
    predicted_s = batch / served.tokens_per_s(served.plain, batch)  # type: ignore[arg-type]
    shape = StepShape(sequences=batch, context_tokens=batch * (served.prompt_tokens + served.output_tokens / 2))
    draws = step_factors(step_shares(served.plain, shape), family_errors(served.plain.target), 1)
    return Case(f"{row['gpu']} {row['model']}", float(row["seconds_per_token"]) / predicted_s, draws)


def speedup_cases() -> list[Case]:
    """Speedups of Llama-3.1-8B with EAGLE-3 and of Qwen3-30B-A3B, acceptance lengths given."""
    rows = [row for row in read_rows() if not left_out(row)]
    llama = [r for r in rows if (r.engine, r.model, r.drafter) == ("vLLM 0.10.1", "llama31_8b", "eagle3")]
    moe = [r for r in rows if r.model == "qwen3_30b_a3b" and r.gpu == "h100_sxm"]
    return [
        *(_speedup_case(row, LLAMA_EAGLE3[row.dataset]) for row in llama),
        *(_speedup_case(row, row.length) for row in moe),
    ]


def _speedup_case(row: Row, length: float) -> Case:
    served, drafter = served_as(row), drafter_of(row)
    assert drafter is not None
    rounds, context = served.drafting(drafter, depth_of(row)), served.prompt_tokens + served.output_tokens // 2
    batch = max(1, round(row.batch))
    draws = speedup_factors(rounds, context, batch)
    name = f"{row.gpu} x{row.tensor_parallel} {row.model} {row.engine}"
    return Case(name, row.speedup / predicted(row, length), draws)


def stream_cases(data: Path) -> list[Case]:
    """Throughput of every stream."""
    streams = [
        (gpu, stream)
        for name, gpu in STREAM_GPUS.items()
        for dataset, size in product(DATASETS, SIZES)
        if (stream := read_stream(data, name, dataset, size)) is not None
    ]
    return [case for gpu, stream in streams for case in _run_cases(gpu, deployment("llama32_1b", gpu), stream)]


def run_cases(data: Path) -> list[Case]:
    """Every figure of the overloaded runs."""
    found: list[Case] = []
    for name, gpu in RUN_GPUS.items():
        run = read_run(data, name)
        given = run.deployment
        served = deployment(
            "llama31_8b", gpu, given.kv_blocks, max_seqs=given.max_seqs, max_batched_tokens=given.max_batched_tokens
        )
        found += _run_cases(gpu, served, measured(run))
    return found


def _run_cases(name: str, served: Experiment, run: Measured) -> Iterable[Case]:
    result, statistics, _ = simulated(served, run)
    bands = run_bands(result)
    for statistic in statistics.values():
        yield Case(name, statistic.measured / statistic.simulated, bands.draws[statistic.figure][statistic.statistic])


def _coverage(kind: str, cases: Sequence[Case], note: str = "") -> list[Check]:
    errors = np.array([1.0 / case.ratio - 1.0 for case in cases])
    owners = {
        owner: [case for case in cases if case.deployment == owner] for owner in sorted({c.deployment for c in cases})
    }
    made = []
    for level in LEVELS:
        held = {owner: float(np.mean([case.held(level) for case in own])) for owner, own in owners.items()}
        widths = [np.log(high / low) / 2.0 for low, high in (interval(case.draws, level) for case in cases)]
        share = float(np.mean([case.held(level) for case in cases]))
        said = (
            f"{note}{len(owners)} deployments: {', '.join(f'{owner} {value:.0%}' for owner, value in held.items())}; "
            f"half width {np.mean(widths):.1%}, mean error {np.abs(errors).mean():.1%}"
        )
        metric = f"held_by_{100 * level:.0f}_band"
        made.append(Check(suite=SUITE, case=kind, metric=metric, value=share, n=len(cases), note=said))
        if kind == "judged" and level == LEVEL:
            off = Check(
                suite=SUITE, case=kind, metric=f"{metric}_off", value=abs(share - level), bar=MOST_OFF, n=len(cases)
            )
            made.append(off)
    return made
