"""The engine preset `static_batch` against the 60 published peaks: two constants for all testbeds, fitted to 40."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from sim import compose
from sim.cost.host import read_engine
from sim.run import step_cost
from validation.checks import Check
from validation.paper_cells import Cell, cells, tokens_per_round
from validation.static_batch import CLUSTERS, Column, shape

PRESET = "static_batch"
DRAFTERS = {
    "qwen2_57b_a14b": ("speculation=draft_model", "speculation.drafter.tensor_parallel=1"),
    "mixtral_8x7b": ("speculation=eagle3", "speculation/drafter=eagle"),
}


@lru_cache(maxsize=64)
def steps_s(pair: str, hardware: str, gamma: int) -> tuple[Column, Column]:
    """A plain step and a round at every batch size, without the two constants."""
    experiment = compose(
        f"model={pair}", f"cluster={CLUSTERS[hardware]}", *DRAFTERS[pair], f"speculation.length.drafts={gamma}",
        f"engine={PRESET}", "engine.draft_pass_host_s=0.0", "engine.round_host_s=0.0",
    )[-1]  # fmt: skip
    plain = step_cost(replace(experiment, speculation=None)).seconds(shape(1))
    return np.asarray(plain), np.asarray(step_cost(experiment).seconds(shape(gamma + 1)))


def peak(cell: Cell, draft_pass_host_s: float, round_host_s: float) -> float:
    """Largest speedup over the batch sizes."""
    decode_s, round_s = steps_s(cell.pair, cell.hardware, cell.gamma)
    return tokens_per_round(cell) / float(((round_s + cell.gamma * draft_pass_host_s + round_host_s) / decode_s).min())


def fitted() -> tuple[float, float]:
    """The two constants that leave the least relative errors on the cells of gamma 2 and 4."""
    from scipy.optimize import least_squares

    members = [cell for cell in cells() if cell.gamma != 3]

    def errors(constants: Sequence[float]) -> list[float]:
        return [peak(cell, *constants) / cell.speedup - 1.0 for cell in members]

    found = least_squares(errors, (1e-3, 5e-3), bounds=(0.0, 0.1), x_scale=(1e-3, 1e-3), diff_step=1e-3).x
    return float(found[0]), float(found[1])


def preset_checks() -> list[Check]:
    """Errors of the preset as it stands, and how far its constants are from a fit made now."""
    preset, (draft_s, round_s) = read_engine(PRESET), fitted()
    note = (
        f"host {1e3 * preset.draft_pass_host_s:.2f} ms per draft pass and {1e3 * preset.round_host_s:.2f} ms per "
        f"round on all testbeds; fitted now to gamma 2 and 4: {1e3 * draft_s:.2f} and {1e3 * round_s:.2f}"
    )
    made = []
    for case, chosen in (("gamma 3, held out", (3,)), ("gamma 2 and 4", (2, 4))):
        error = [
            abs(peak(cell, preset.draft_pass_host_s, preset.round_host_s) / cell.speedup - 1.0)
            for cell in cells()
            if cell.gamma in chosen
        ]
        made.append(
            Check(
                suite="paper", case=f"engine preset {PRESET}, {case}", metric="mean_error", value=float(np.mean(error)),
                n=len(error), note=f"{note}; worst {max(error):.1%}",
            )
        )  # fmt: skip
    return made
