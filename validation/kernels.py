"""The cost model against measured kernels: the accuracy table of the calibration, recomputed from the public tables.

Fitted: whole shape groups held out, a third of them at a time, by hash. Tables: every fifth size held out. The forms
were chosen on the same tables, so a held-out figure is free of the constants' hindsight but not of the forms'.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.bundle import JUDGED, LARGE, SMALL, Recipe, gather
from sim.calibration.calibration import FP8
from sim.calibration.checks import load
from sim.calibration.fit import relative_error
from sim.calibration.fit_family import FamilyFit, fit_family
from sim.calibration.form import Form
from sim.calibration.forms import FORMS
from sim.calibration.forms_gemm import ExpertForm, QuantisedForm
from sim.calibration.holdout import every_fifth, every_fifth_of_grid, on_edge
from sim.calibration.pooled import held_out_gpus, predicted_from
from sim.calibration.tables import in_table, table_without
from sim.cost.constants import GENERIC, read_constants
from sim.cost.kinship import constants_for
from sim.data import data_dir
from sim.hardware import read_gpu
from validation.checks import Check
from validation.kernels_latent import latent_checks

SUITE = "kernels"
METRIC = "mean absolute relative error"

BARS = {
    "experts": (0.06, 0.06, 0.10, 0.10),
    "dense": (0.075, 0.075, 0.11, 0.13),
    "attention_decode": (0.09, 0.09, 0.18, 0.15),
    "attention_prefill": (0.09, 0.09, 0.13, 0.13),
}
GOALS = {
    "experts": (0.045, 0.045, 0.08, 0.08),
    "dense": (0.06, 0.06, 0.09, 0.10),
    "attention_decode": (0.07, 0.07, 0.12, 0.09),
    "attention_prefill": (0.07, 0.07, 0.10, 0.10),
}
TABLE_BARS = (0.04, 0.04, 0.05, 0.05)
TABLE_GOAL = 0.03
ABOVE_L2_BAR, ABOVE_L2_GOAL = 0.10, 0.09
KIN_BAR = 0.15

_RELATIVES = "one model's shapes, other kernels or eager timing; cards of an architecture differ in power limit and L2"
_HEAD_DIMS = "head dims 64, 192 and 256 run kernels of their own under one set of constants"
REASONS = {
    ("dense", "table"): "the library picks another kernel from one number of rows to the next",
    ("attention_decode", "l40s_vllm"): "caches below its 96 MB L2 stay there between the replays",
    (
        "attention_prefill",
        "h200_sxm_vllm",
    ): _HEAD_DIMS,
    (
        "attention_prefill",
        "h100_sxm_vllm",
    ): _HEAD_DIMS,
}

Mask = NDArray[np.bool_]


def checks(data: Path | None) -> list[Check]:
    """Every figure of the accuracy table; without `data`, the committed calibrations on our own measurements alone."""
    own = list(_own_measurements())
    if data is None:
        return own or [_missing("no --data, and no kernel trace of our own in hardware_specs/kernel_traces yet")]
    found: list[Check] = []
    fits: dict[str, dict[str, FamilyFit]] = {}
    for recipe in sorted((r for r in LARGE if r.name in JUDGED), key=lambda r: JUDGED.index(r.name)):
        try:
            rows = gather(recipe, data).rows
        except FileNotFoundError as error:
            found.append(_missing(str(error), recipe.name))
            continue
        fits[recipe.name] = {form.family: _fit(form, rows, recipe) for form in FORMS}
        for form in FORMS:
            found += _fitted(fits[recipe.name][form.family], recipe.name)
            found += _tabled(fits[recipe.name][form.family], recipe.name)
        found += _fp8(rows, recipe)
        found += _shards(fits[recipe.name]["experts"], recipe.name)
    return [*found, *latent_checks(data), *_kin(fits), *_relatives(data), *own]


def _fit(form: Form, rows: Any, recipe: Recipe) -> FamilyFit:
    judged = form.judged(rows, read_gpu(recipe.gpu))
    assert judged is not None, f"{recipe.name} has no rows of {form.family}"
    return fit_family(form, judged, recipe.said)


def _fitted(fit: FamilyFit, cell: str) -> Iterator[Check]:
    family, place = fit.form.family, JUDGED.index(cell)
    thirds = ", ".join(f"{fit.error(fit.headline & (fit.folds == third)):.1%}" for third in range(3))
    quality = fit.efficiency.fit
    note = (
        f"{len(fit.form.constants)} constants, {quality.groups} shapes, a third held out at a time ({thirds}); in "
        f"sample {quality.in_sample_error:.1%}, noise {quality.noise:.1%}"
    )
    aside = sum(fit.set_aside.values())
    note += f"; {aside} rows from the L2 left out" if aside else ""
    note += f"; {REASONS[family, cell]}" if (family, cell) in REASONS else ""
    yield _check(cell, family, "fitted", fit.error(), fit.headline, BARS[family][place], GOALS[family][place], note)
    if family == "attention_prefill":
        usual = fit.usable & (fit.judged.rows["head_dim"] == 128).to_numpy(bool)
        yield _check(cell, family, "fitted, head dim 128", fit.error(usual), usual)
    if family == "attention_decode":
        above = fit.usable & ~fit.judged.in_l2
        bar, goal = (ABOVE_L2_BAR, ABOVE_L2_GOAL) if cell == "l40s_vllm" else (None, None)
        yield _check(cell, family, "fitted, caches above the L2", fit.error(above), above, bar, goal)
    if family != "attention_decode":
        seconds, bound_s = fit.form.price(fit.efficiency, fit.judged), fit.judged.work.bound_s(fit.judged.peaks)
        below = int(np.count_nonzero(seconds < np.asarray(bound_s) * (1 - 1e-9)))
        what = f"{cell} {family}"
        yield Check(
            suite=SUITE,
            case=what,
            metric="rows priced below the hard bound",
            value=float(below),
            bar=0.0,
            n=len(seconds),
        )


def _tabled(fit: FamilyFit, cell: str) -> Iterator[Check]:
    """Every fifth size left out of the table; edges, and sizes one above a power of two, apart."""
    form, judged, dtype = fit.form, fit.judged, "bf16"
    held, edge, beyond = _held_sizes(fit)
    table = table_without(form, judged, fit.efficiency, fit.usable & ~held, dtype)
    seconds = in_table(table, form, judged, fit.efficiency, dtype)

    def error(mask: Mask) -> float:
        return relative_error(seconds[mask], judged.measured_s[mask])

    inside = held & fit.headline & ~edge & ~beyond
    note = REASONS.get((form.family, "table"), "")
    bar = TABLE_BARS[JUDGED.index(cell)]
    yield _check(cell, form.family, "table", error(inside), inside, bar, TABLE_GOAL, note)
    for mask, name in ((edge, "table, edges of a shape"), (beyond, "table, one row above a power of two")):
        chosen = held & fit.headline & mask
        if chosen.any():
            yield _check(cell, form.family, name, error(chosen), chosen)


def _held_sizes(fit: FamilyFit) -> tuple[Mask, Mask, Mask]:
    rows, form = fit.judged.rows, fit.form
    inner = rows[form.size[0]].to_numpy(np.float64)
    none = np.zeros(len(rows), bool)
    if form.family in ("dense", "experts"):
        above = np.log2(np.maximum(inner - 1, 1.0))
        return every_fifth(inner), none, (inner > 2) & (above == np.rint(above))
    outer = rows[form.size[1]].to_numpy(np.float64)
    groups = np.unique([str(key) for key in form.keys(rows)], return_inverse=True)[1]
    return every_fifth_of_grid(outer, inner), on_edge(groups, outer, inner), none


def _fp8(rows: Any, recipe: Recipe) -> Iterator[Check]:
    gpu = read_gpu(recipe.gpu)
    if "fp8" not in gpu.peak_flops_per_s:
        return
    for form in (ExpertForm(), QuantisedForm()):
        for dtype in FP8:
            judged = form.judged(rows, gpu, dtype)
            if judged is not None:
                fit = fit_family(form, judged, recipe.said)
                yield _check(recipe.name, f"{form.family} {dtype}", "fitted", fit.error(), fit.headline)


def _shards(fit: FamilyFit, cell: str) -> Iterator[Check]:
    """Shards of tensor parallelism, held out with their experts."""
    for ranks in (2, 4, 8):
        rows = fit.usable & (fit.judged.rows["tensor_parallel"] == ranks).to_numpy(bool)
        if rows.any():
            yield _check(cell, fit.form.family, f"fitted, shards of {ranks}", fit.error(rows), rows)


def _kin(fits: dict[str, dict[str, FamilyFit]]) -> Iterator[Check]:
    """Each GPU from the others: with constants of its kin, and with one set of constants fitted to all others."""
    for cell, own in fits.items():
        for other, theirs in fits.items():
            if cell != other and read_gpu(_gpu(cell)).architecture == read_gpu(_gpu(other)).architecture:
                for family, fit in own.items():
                    error = predicted_from(fit, theirs[family].efficiency)
                    yield _check(cell, family, f"kin, constants of {other}", error, fit.headline, KIN_BAR)
    if len(fits) > 1:
        note = (
            "one set of constants fitted to the other GPUs of this table, two of them of other architectures at least"
        )
        for form in FORMS:
            errors = held_out_gpus([own[form.family] for own in fits.values()])
            for (cell, own), error in zip(fits.items(), errors, strict=True):
                yield _check(cell, form.family, "any GPU", error, own[form.family].headline, note=note)


def _relatives(data: Path) -> Iterator[Check]:
    """GPUs of which few shapes were measured, from the broadly measured GPU of their architecture."""
    for recipe in SMALL:
        kin = read_constants(recipe.kin)
        gpu = read_gpu(recipe.gpu)
        if kin.architecture != gpu.architecture or recipe.kin == GENERIC:
            continue
        try:
            rows = gather(recipe, data).rows
        except FileNotFoundError as missing:
            yield _missing(str(missing), recipe.name)
            continue
        for form in FORMS:
            judged = form.judged(rows, gpu, eager=recipe.eager)
            if judged is not None:
                usable = ~judged.faster_than_memory & form.headline(judged.rows)
                seconds = form.price(getattr(kin, form.family), judged)
                error = relative_error(seconds[usable], judged.measured_s[usable])
                yield _check(
                    recipe.name, form.family, f"kin, constants of {recipe.kin}", error, usable, KIN_BAR, note=_RELATIVES
                )


def _own_measurements() -> Iterator[Check]:
    folder = data_dir("hardware_specs") / "kernel_traces"
    for path in sorted(folder.glob("*.parquet")) if folder.is_dir() else ():
        rows = load(path).rows
        for gpu_name, engine in sorted(set(zip(rows["gpu"].dropna(), rows["engine"].dropna(), strict=False))):
            gpu = read_gpu(gpu_name)
            constants, _ = constants_for(gpu, "vllm")
            for form in FORMS:
                judged = form.judged(rows[(rows["engine"] == engine).to_numpy(bool)], gpu)
                if judged is not None:
                    seconds = form.price(getattr(constants, form.family), judged)
                    error = relative_error(seconds, judged.measured_s)
                    every = np.ones(len(seconds), bool)
                    yield _check(f"{path.stem} {engine}", form.family, "committed constants", error, every)


def _check(
    cell: str, family: str, how: str, error: float, rows: Mask, bar: float | None = None, goal: float | None = None,
    note: str = "",
) -> Check:  # fmt: skip
    return Check(
        suite=SUITE, case=f"{cell} {family}: {how}", metric=METRIC, value=error, bar=bar, goal=goal, n=int(rows.sum()),
        note=note,
    )  # fmt: skip


def _missing(why: str, case: str = "all") -> Check:
    return Check(suite=SUITE, case=case, metric=METRIC, value=None, note=why)


def _gpu(cell: str) -> str:
    return cell.rpartition("_")[0]
