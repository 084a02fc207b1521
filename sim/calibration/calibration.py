"""From measured rows to one calibration: every family that has rows is fitted, the rest is left to the kin."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sim.calibration.fit_allreduce import fit_allreduce
from sim.calibration.fit_family import FamilyFit, fit_family
from sim.calibration.forms import FORMS, OPTIONAL
from sim.calibration.forms_gemm import BlockForm, ExpertForm, QuantisedForm
from sim.calibration.provenance import Sources
from sim.cost.constants import GENERIC, Calibration, Constants
from sim.hardware import Gpu

FP8 = ("fp8_block", "fp8")
"""What fp8 constants are fitted on: blockwise scales, as fp8 checkpoints of large models have them, else per tensor."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration, the fits behind it by field, and why families went without."""

    calibration: Calibration
    fits: dict[str, FamilyFit]
    skipped: dict[str, str] = field(default_factory=dict)


def fit_calibration(
    found: Sources, gpu: Gpu, engine: str, source: str, *, kin: str = GENERIC, base: Constants | None = None,
    eager: bool = False, day: str = "",
) -> Calibrated:  # fmt: skip
    """Fit every family of `gpu` that `found` has enough rows for.

    Args:
        found: the measured rows.
        gpu: the GPU they are of.
        engine: the engine whose kernels they time.
        source: what the rows are, for the file.
        kin: calibration that the other families are taken from.
        base: its constants, for families with too few shapes to fit them all; None: such a family is left out.
        eager: where a family has no rows from inside a CUDA graph, take those timed outside.
        day: date of the fit; default today.

    Raises:
        ValueError: no family has enough rows.
    """
    fits: dict[str, FamilyFit] = {}
    skipped: dict[str, str] = {}
    for name, form, dtype in _wanted(gpu):
        if name in fits:
            continue
        judged = form.judged(found.rows, gpu, dtype)
        if judged is None and eager:
            judged = form.judged(found.rows, gpu, dtype, eager=True)
        if judged is None:
            skipped.setdefault(name, "no rows")
            continue
        try:
            fits[name] = fit_family(form, judged, f"{source}, {dtype}", getattr(base, name, None))
            skipped.pop(name, None)
        except ValueError as error:
            skipped[name] = str(error)
    if not fits:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ValueError(f"no family of {gpu.name} under {engine} can be fitted: {reasons}")
    aside = dict(found.set_aside)
    for fit in fits.values():
        aside |= fit.set_aside
    parts: dict[str, Any] = {name: fit.efficiency for name, fit in fits.items()}
    calibration = Calibration(
        gpu=gpu.name, architecture=gpu.architecture, engine=engine, kin=kin, fitted_on=day or _today(),
        tables=found.tables, set_aside=aside, allreduce=fit_allreduce(found.rows, gpu, source), **parts,
    )  # fmt: skip
    return Calibrated(calibration, fits, skipped)


def _today() -> str:
    return datetime.now(tz=UTC).date().isoformat()


def _wanted(gpu: Gpu) -> list[tuple[str, Any, str]]:
    """Field of `Calibration`, form and data type of every fit to try."""
    wanted: list[tuple[str, Any, str]] = [(form.family, form, "bf16") for form in FORMS]
    wanted.append(("experts", BlockForm(), "bf16"))
    if "fp8" in gpu.peak_flops_per_s:
        wanted += [("dense_fp8", QuantisedForm(), dtype) for dtype in FP8]
        wanted += [("experts_fp8", ExpertForm(), dtype) for dtype in FP8]
    return [*wanted, *((form.family, form, "bf16") for form in OPTIONAL)]
