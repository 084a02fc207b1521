"""Shares of a step spent on drafting and on the host, against `measured/step_time_shares.csv`."""

from __future__ import annotations

import csv

import numpy as np

from sim import load_model
from sim.cost.host import Engine
from sim.cost.routing import Uniform
from sim.cost.shape import StepShape
from sim.speculation.draft import Drafter, DraftModel
from sim.speculation.eagle import Eagle
from sim.speculation.ngram import NGram
from validation.checks import Check
from validation.speculation_rows import EAGLE3_VOCAB, MEASURED
from validation.speculation_steps import Deployment

CONTEXT = (300, 300)
"""Prompt and output: between the four data sets, which the source does not name for its time shares."""
DRAFTERS: dict[str, Drafter] = {
    "ngram": NGram(match_rate=1.0),
    "eagle": Eagle(version=1),
    "eagle3": Eagle(vocab=EAGLE3_VOCAB),
    "draft_model": DraftModel(),
}


def checks(engine: Engine) -> list[Check]:
    """Mean distance of our shares from the measured ones, in points."""
    with (MEASURED / "step_time_shares.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    distance = np.array([_distance(row, engine) for row in rows])
    fitted = np.array([row["model"] == "llama31_8b" for row in rows])
    small = np.array([row["batch"] == "1" for row in rows])
    names = ("draft_share_points", "overhead_share_points")
    made = []
    for column, name in enumerate(names):
        off = distance[:, column]
        note = (
            f"host constants fitted on the Llama-3.1-8B rows ({off[fitted].mean():.1f} points), Qwen3-8B "
            f"{off[~fitted].mean():.1f}; batch 1 {off[small].mean():.1f}, above {off[~small].mean():.1f}: above "
            "batch 1 the measured draft time lies below its own at batch 1, so part of it is booked elsewhere"
        )
        made.append(
            Check(
                suite="speculation", case="step time shares, H100, vLLM 0.10.1", metric=name, value=float(off.mean()),
                bar=4.0, goal=2.0, n=len(rows), note=note,
            )
        )  # fmt: skip
    return made


def _distance(row: dict[str, str], engine: Engine) -> tuple[float, float]:
    served = Deployment(
        model=load_model(row["model"], "model"), gpu=row["gpu"], tensor_parallel=1, engine=engine, kernels="vllm",
        routing=Uniform(), prompt_tokens=CONTEXT[0], output_tokens=CONTEXT[1],
    )  # fmt: skip
    cost, batch = served.plain, int(row["batch"])
    if row["method"] != "none":
        cost = served.drafting(DRAFTERS[row["method"]], int(row["gamma"].split(".")[0]))
    context = batch * (CONTEXT[0] + CONTEXT[1] // 2)
    families = cost.families(StepShape(sequences=batch, width=cost.width, context_tokens=context))
    step_s = float(sum(families.values()))
    return tuple(
        abs(100.0 * float(families[family]) / step_s - float(row[column]))
        for family, column in (("draft", "draft_pct"), ("host", "overhead_pct"))
    )  # type: ignore[return-value]
