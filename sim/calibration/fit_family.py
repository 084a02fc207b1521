"""The fit of one op family on one GPU and engine: constants, held-out error, noise, what was set aside."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.fit import Floats, relative_error, solve, standard_errors
from sim.calibration.form import Form, Judged
from sim.calibration.holdout import FOLDS, fold_of, held_out
from sim.cost.efficiency import Efficiency, Fit

if TYPE_CHECKING:
    import pandas as pd

_ROWS_PER_CONSTANT = 5
"""Rows to fit a constant on, a third of them held out."""

L2_WARM = "faster than the memory allows: operands left in the L2 by the benchmark"


@dataclass(frozen=True, slots=True)
class FamilyFit:
    """Constants fitted to all usable rows, and what every row would have been predicted without its group.

    Attributes:
        form, judged: the family and its rows.
        usable: rows that were fitted and judged.
        efficiency: the constants, with error, source and fit filled in.
        held_out_s: prediction per row by the fit without the row's third of the groups.
        folds: that third.
    """

    form: Form
    judged: Judged
    usable: NDArray[np.bool_]
    efficiency: Any
    held_out_s: Floats
    folds: NDArray[np.int64]

    @property
    def set_aside(self) -> dict[str, int]:
        """Reason -> rows left out."""
        count = int((~self.usable).sum())
        return {f"{self.form.family}: {L2_WARM}": count} if count else {}

    @property
    def headline(self) -> NDArray[np.bool_]:
        """Usable rows that the stated error is of."""
        return self.usable & self.form.headline(self.judged.rows)

    def error(self, mask: NDArray[np.bool_] | None = None) -> float:
        """Held-out error over the headline rows, or over the usable rows in `mask`."""
        rows = self.headline if mask is None else self.usable & mask
        return relative_error(self.held_out_s[rows], self.judged.measured_s[rows])


def fit_family(form: Form, judged: Judged, source: str, base: Efficiency | None = None, starts: int = 3) -> FamilyFit:
    """Fit `form` to `judged`.

    With fewer than three shape groups every third size is held out in place of groups. With so few groups or rows, only
    memory and compute efficiency and the fixed time are fitted and the other constants are those of `base`. `source`
    then says so.

    Raises:
        ValueError: too few rows for the constants, or too few groups or rows and no `base`.
    """
    keys = form.keys(judged.rows)
    groups = len(set(keys))
    few = len(keys) < _ROWS_PER_CONSTANT * len(form.constants)
    if groups < FOLDS or few:
        if base is None:
            raise ValueError(f"{form.family}: {groups} shapes and {len(keys)} rows are too few to hold a third out")
        form, source = narrowed(form, base), f"{source}; few shapes or rows: other constants of the kin"
    if groups < FOLDS:
        source = f"{source}, sizes held out"
        folds = np.unique(judged.rows[form.size[0]].to_numpy(np.float64), return_inverse=True)[1] % FOLDS
    else:
        folds = fold_of(keys)
    usable = ~judged.faster_than_memory | (judged.in_l2 if form.keeps_in_l2 else False)
    predict = predictor(form, judged)

    def solved(rows: NDArray[np.bool_]) -> Floats:
        return solve(lambda values: predict(values)[rows], form.constants, judged.measured_s[rows], starts)

    def fit_without(rows: NDArray[np.bool_]) -> Callable[[], Floats]:
        values = solved(rows & usable)
        return lambda: predict(values)

    held_out_s = held_out(folds, fit_without)
    values = solved(usable)
    measured_s = judged.measured_s[usable]
    numbers = np.unique([str(key) for key in keys], return_inverse=True)[1][usable]
    errors = standard_errors(lambda v: predict(v)[usable], form.constants, values, measured_s, numbers)
    headline = usable & form.headline(judged.rows)
    fit = Fit(
        rows=int(usable.sum()),
        groups=groups,
        in_sample_error=relative_error(predict(values)[headline], judged.measured_s[headline]),
        noise=roughness(form, judged.rows[headline]),
        standard_errors={c.name: float(e) for c, e in zip(form.constants, errors, strict=True) if np.isfinite(e)},
    )
    error = relative_error(held_out_s[headline], judged.measured_s[headline])
    efficiency = with_values(form, values, error=error, source=source, fit=fit)
    return FamilyFit(form, judged, usable, efficiency, held_out_s, folds)


def narrowed(form: Form, base: Efficiency) -> Form:
    """`form` with the plain roofline's constants alone to fit, the others as in `base`."""
    narrow = copy(form)
    narrow.constants = form.constants[:3]
    narrow.fixed = {c.name: getattr(base, c.name) for c in form.constants[3:]}
    return narrow


def predictor(form: Form, judged: Judged) -> Callable[[Floats], Floats]:
    """Values of the form's constants -> seconds of every judged row."""
    return lambda values: form.price(with_values(form, values), judged)


def with_values(form: Form, values: Floats, **more: Any) -> Efficiency:
    """The form's constants at these values."""
    named = {c.name: float(value) for c, value in zip(form.constants, values, strict=True)}
    return form.schema(**{"source": "", **more, **form.fixed, **named})


def roughness(form: Form, rows: pd.DataFrame) -> float:
    """Median relative distance of a measurement from the line through its two neighbours in size, log to log.

    An upper estimate of the noise within one collection: true steps between sizes count as well. Zero where no curve
    has three points.
    """
    inner, *outer = form.size
    ordered = rows.sort_values([*form.group, *outer, inner])
    curve = ordered.groupby([*form.group, *outer], sort=False).ngroup().to_numpy()
    size, latency = (
        np.log(ordered[name].to_numpy(np.float64) + 1.0 * (name == inner)) for name in (inner, "latency_s")
    )
    middle = (curve[2:] == curve[:-2]) & (size[2:] > size[1:-1]) & (size[1:-1] > size[:-2])
    if not middle.any():
        return 0.0
    share = (size[1:-1] - size[:-2])[middle] / (size[2:] - size[:-2])[middle]
    line = latency[:-2][middle] * (1.0 - share) + latency[2:][middle] * share
    return float(np.median(np.abs(np.expm1(latency[1:-1][middle] - line))) / np.sqrt(1.5))
