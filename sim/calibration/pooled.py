"""Constants for GPUs that nobody measured: one set fitted to all GPUs together, and what a prediction from kin errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from sim.calibration.fit import Floats, relative_error, solve, standard_errors
from sim.calibration.fit_family import FamilyFit, predictor, with_values
from sim.calibration.form import Form, Judged
from sim.cost.efficiency import Efficiency, Fit


def pooled(fits: Sequence[FamilyFit], source: str) -> Efficiency:
    """One set of constants for the rows of all `fits` of one family, each GPU weighing the same.

    The error is that on a GPU held out of the fit, mean over the GPUs.

    Raises:
        ValueError: fewer than two GPUs.
    """
    form, judged = fits[0].form, joined([fit.judged for fit in fits])
    owner, usable = _owners(fits)
    predict = predictor(form, judged)
    values = _solved(form, judged, owner, usable)
    spread = standard_errors(
        lambda v: predict(v)[usable], form.constants, values, judged.measured_s[usable], owner[usable]
    )
    fit = Fit(
        rows=int(usable.sum()),
        groups=len(fits),
        in_sample_error=relative_error(predict(values)[usable], judged.measured_s[usable]),
        noise=float(np.mean([fit.efficiency.fit.noise for fit in fits])),
        standard_errors={c.name: float(e) for c, e in zip(form.constants, spread, strict=True) if np.isfinite(e)},
    )
    error = float(np.mean(held_out_gpus(fits)))
    return with_values(form, values, error=error, source=source, fit=fit)


def held_out_gpus(fits: Sequence[FamilyFit]) -> list[float]:
    """Error on each GPU under one set of constants fitted to the others.

    Raises:
        ValueError: fewer than two GPUs.
    """
    if len(fits) < 2:
        raise ValueError(f"constants for any GPU need at least two measured ones, got {len(fits)}")
    form, judged = fits[0].form, joined([fit.judged for fit in fits])
    owner, usable = _owners(fits)
    predict = predictor(form, judged)
    errors = []
    for held in range(len(fits)):
        outside = usable & (owner == held) & form.headline(judged.rows)
        values = _solved(form, judged, owner, usable & (owner != held))
        errors.append(relative_error(predict(values)[outside], judged.measured_s[outside]))
    return errors


def predicted_from(fit: FamilyFit, other: Efficiency) -> float:
    """Error on the usable rows of `fit` under the constants of another GPU."""
    seconds = fit.form.price(other, fit.judged)
    return relative_error(seconds[fit.headline], fit.judged.measured_s[fit.headline])


def joined(parts: Sequence[Judged]) -> Judged:
    """The rows of several GPUs as one, every figure of a GPU repeated over its rows."""
    import pandas as pd

    sizes = [len(part.rows) for part in parts]
    return Judged(
        rows=pd.concat([part.rows for part in parts], ignore_index=True),
        case=_stacked([part.case for part in parts], sizes),
        work=_stacked([part.work for part in parts], sizes),
        in_l2=np.concatenate([part.in_l2 for part in parts]),
        peaks=_stacked([part.peaks for part in parts], sizes),
    )


def _owners(fits: Sequence[FamilyFit]) -> tuple[Any, Any]:
    """Per row the place of its GPU in `fits`, and whether it counts."""
    owner = np.repeat(np.arange(len(fits)), [len(fit.usable) for fit in fits])
    return owner, np.concatenate([fit.usable for fit in fits])


def _solved(form: Form, judged: Judged, owner: Any, rows: Any) -> Floats:
    """The fit on `rows`, those of a GPU with many thinned to the size of the smallest table."""
    smallest = min(int(np.count_nonzero(owner[rows] == one)) for one in np.unique(owner[rows]))
    kept = np.zeros(len(rows), bool)
    for one in np.unique(owner[rows]):
        own = np.flatnonzero(rows & (owner == one))
        kept[own[np.linspace(0, len(own) - 1, smallest).astype(np.int64)]] = True
    predict = predictor(form, judged)
    return solve(lambda values: predict(values)[kept], form.constants, judged.measured_s[kept])


def _stacked(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    if is_dataclass(parts[0]):
        names = [field.name for field in fields(parts[0])]
        kind: Any = type(parts[0])
        return kind(**{name: _stacked([getattr(part, name) for part in parts], sizes) for name in names})
    return np.concatenate([np.broadcast_to(part, size) for part, size in zip(parts, sizes, strict=True)])
