"""Decode over MLA's latent cache against measured kernels.

A shape is a number of query heads on the GPU, 1 to 128. The tables have one token per sequence alone: the price of
several is the form's. vLLM was timed in whole modules (projections, rope, attention), so of its kernel only the growth
with the context is known: what 4,096 tokens and more take beyond 256, where that is 30 % of the module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.calibration.bundle import LARGE, READERS, SMALL, Recipe, gather
from sim.calibration.fit import Floats, relative_error
from sim.calibration.fit_family import FamilyFit, fit_family
from sim.calibration.form import Judged, shapes_of
from sim.calibration.forms_attention import decoding
from sim.calibration.forms_latent import LatentForm, latent_rank
from sim.cost.constants import Constants, read_constants
from sim.cost.kinship import constants_for
from sim.cost.work import Peaks
from sim.hardware import read_gpu
from validation.checks import Check

if TYPE_CHECKING:
    import pandas as pd

FAMILY = "attention_latent"
BAR, GOAL = 0.10, 0.07
GROWTH_BAR = 0.15
"""Bars and goals were set after the figures had been seen."""

ALL_HEADS = 128
SHORT_TOKENS, LONG_TOKENS = 256, 4096
LEAST_SHARE = 0.3

_SMALL = "one shape (128 heads), eager: memory, compute and fixed time fitted, sizes held out, the rest of the kin"
_GROWTH = "modules of vLLM 0.24 in bf16 (FlashAttention-3), which nothing was fitted to"


def latent_checks(data: Path) -> Iterator[Check]:
    """Every calibration with such rows, then vLLM under the constants that it borrows."""
    for recipe in (*LARGE, *SMALL):
        patterns = tuple(pattern for pattern in recipe.patterns if "/mla/" in pattern)
        try:
            rows = gather(replace(recipe, patterns=patterns, only_fp8=()), data).rows
        except FileNotFoundError:
            continue
        judged = LatentForm().judged(rows, read_gpu(recipe.gpu), eager=recipe.eager)
        if judged is not None:
            base = read_constants(recipe.kin).attention_latent if recipe in SMALL else None
            yield from _of(fit_family(LatentForm(), judged, recipe.said, base), recipe)
    for gpu_name in ("h200_sxm", "h100_sxm"):
        yield from _growth(data, gpu_name)


def _of(fit: FamilyFit, recipe: Recipe) -> Iterator[Check]:
    quality, judged = fit.efficiency.fit, fit.judged
    thirds = ", ".join(f"{fit.error(fit.folds == third):.1%}" for third in range(3))
    note = _SMALL if quality.groups == 1 else f"{len(fit.form.constants)} constants, {quality.groups} numbers of heads"
    note = f"{note}; a third held out at a time ({thirds}); in sample {quality.in_sample_error:.1%}"
    yield _check(recipe.name, "fitted", fit.error(), fit.usable, BAR, GOAL, note)
    all_heads = fit.usable & (judged.rows["heads"] == ALL_HEADS).to_numpy(bool)
    if quality.groups > 1:
        yield _check(recipe.name, "fitted, all 128 heads on a GPU", fit.error(all_heads), all_heads)
    above = fit.usable & ~judged.in_l2
    yield _check(recipe.name, "fitted, caches above the L2", fit.error(above), above)
    plain = np.asarray(_under_gqa(judged, read_constants(recipe.name)))
    for mask, name in ((fit.usable, ""), (all_heads, ", all 128 heads on a GPU")):
        error = relative_error(plain[mask], judged.measured_s[mask])
        yield _check(recipe.name, f"under the constants of GQA{name}", error, mask)
    if recipe in SMALL:
        kin = fit.form.price(read_constants(recipe.kin).attention_latent, judged)
        error = relative_error(kin[fit.usable], judged.measured_s[fit.usable])
        yield _check(recipe.name, f"kin, constants of {recipe.kin}", error, fit.usable)


def _under_gqa(judged: Judged, constants: Constants) -> Floats:
    """What the rows cost where a calibration has no constants for a latent cache."""
    seconds = np.empty(len(judged.rows))
    for (heads,), group in shapes_of(judged.rows, ("heads",)):
        core = latent_rank(heads).decode_core(decoding(group), constants.attention_decode.tile_rows)
        places = group.index.to_numpy()
        seconds[places] = constants.attention_decode.decode_s(core, judged.peaks, judged.in_l2[places])
    return seconds


def _growth(data: Path, gpu_name: str) -> Iterator[Check]:
    gpu = read_gpu(gpu_name)
    peaks = Peaks(gpu.flops_per_s("bf16"), gpu.memory_bandwidth_bytes_per_s, gpu.sm_count)
    constants, _ = constants_for(gpu, "vllm")
    for path in sorted((data / "aiconfigurator").glob(f"{gpu_name}/mla/vllm/*/mla_generation_module_perf.parquet")):
        rows = READERS["aiconfigurator"](path).rows
        rows = rows[((rows["kv_dtype"] == "bf16") & (rows["dtype"] == "bf16")).to_numpy(bool)]
        parts = [
            (key[0], _grown(group, key[0], constants, peaks)) for key, group in shapes_of(rows, ("heads", "batch"))
        ]
        heads = np.concatenate([np.full(part.shape[1], head) for head, part in parts])
        measured, latent, plain = np.concatenate([part for _, part in parts], axis=1)
        owner = constants.borrowed.get(FAMILY, f"{constants.gpu} under {constants.engine}")
        for mask, name in ((heads > 0, ""), (heads == ALL_HEADS, ", all 128 heads on a GPU")):
            for seconds, whose in ((latent, f"constants of {owner}"), (plain, "constants of GQA")):
                error = relative_error(seconds[mask], measured[mask])
                bar = GROWTH_BAR if seconds is latent and not name else None
                how = f"growth with the context, {whose}{name}"
                yield _check(f"{gpu_name}_vllm", how, error, mask, bar, note=_GROWTH)


def _grown(rows: pd.DataFrame, heads: int, constants: Constants, peaks: Peaks) -> Floats:
    """Seconds that long contexts take beyond the shortest above `SHORT_TOKENS`: measured, latent's, GQA's."""
    rows = rows.sort_values("context_tokens").drop_duplicates("context_tokens")
    rows = rows[(rows["context_tokens"] >= SHORT_TOKENS).to_numpy(bool)]
    rank, shape = latent_rank(heads), decoding(rows)
    assert constants.attention_latent is not None
    times = np.stack(
        [
            rows["latency_s"].to_numpy(np.float64),
            np.asarray(rank.latent(shape, constants.attention_latent, peaks)),
            np.asarray(rank.decode(shape, constants.attention_decode, peaks)),
        ]
    )
    growth = times - times[:, :1]
    long = (rows["context_tokens"] >= LONG_TOKENS).to_numpy(bool) & (growth[0] >= LEAST_SHARE * times[0])
    return np.asarray(growth[:, long])


def _check(
    cell: str, how: str, error: float, rows: NDArray[np.bool_], bar: float | None = None, goal: float | None = None,
    note: str = "",
) -> Check:  # fmt: skip
    return Check(
        suite="kernels", case=f"{cell} {FAMILY}: {how}", metric="mean absolute relative error", value=error, bar=bar,
        goal=goal, n=int(rows.sum()), note=note,
    )  # fmt: skip
