"""Fits one optional family into the bundled calibrations and leaves every other number of theirs as it is.

`python -m sim.calibration.bundle_family DATA attention_latent`; `sim.calibration.bundle` fits everything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sim.calibration.bundle import LARGE, SMALL, Recipe, gather, with_transfer_errors, write
from sim.calibration.calibration import Calibrated
from sim.calibration.fit_family import fit_family
from sim.calibration.form import Form
from sim.calibration.forms import OPTIONAL
from sim.calibration.pooled import predicted_from
from sim.cost.constants import read_calibration, read_constants
from sim.cost.efficiency import Efficiency
from sim.hardware import read_gpu


def refit(data: Path, form: Form) -> dict[str, Calibrated]:
    """Fit the family of `form` wherever its recipe has rows of it, and write those files.

    Args:
        data: folder with the tables.
        form: one of `OPTIONAL`.

    Returns:
        Name of the file -> what it holds now, with the fit of this family.

    Raises:
        FileNotFoundError: the tables of a recipe are not there.
    """
    family = form.family
    large = {recipe.name: one for recipe in LARGE if (one := _fitted(recipe, data, form, None))}
    for name, one in large.items():
        others = [other for key, other in large.items() if key != name]
        errors = with_transfer_errors(one, others)
        large[name] = _with_errors(one, errors.kin_errors, errors.stranger_errors)
        write(large[name].calibration, name)
    small: dict[str, Calibrated] = {}
    for recipe in SMALL:
        kin = read_constants(recipe.kin)
        base: Efficiency | None = getattr(kin, family)
        found = _fitted(recipe, data, form, base)
        if found and base:
            transfer = {family: predicted_from(found.fits[family], base)}
            related = kin.architecture == found.calibration.architecture
            small[recipe.name] = _with_errors(found, transfer if related else {}, {} if related else transfer)
            write(small[recipe.name].calibration, recipe.name)
    for name, one in large.items():
        relatives = [other.calibration for other in small.values() if other.calibration.kin == name]
        known = [c.kin_errors[family] for c in (one.calibration, *relatives) if family in c.kin_errors]
        if relatives and known:
            large[name] = _with_errors(one, {family: sum(known) / len(known)}, {})
            write(large[name].calibration, name)
    return large | small


def _fitted(recipe: Recipe, data: Path, form: Form, base: Efficiency | None) -> Calibrated | None:
    """The file of the recipe with this family fitted; None where it has no rows of it."""
    found = gather(recipe, data)
    judged = form.judged(found.rows, read_gpu(recipe.gpu), eager=recipe.eager)
    if judged is None:
        return None
    fit = fit_family(form, judged, f"{recipe.said}, bf16", base)
    old = read_calibration(recipe.name)
    aside = old.set_aside | found.set_aside | fit.set_aside
    fitted: dict[str, Any] = {form.family: fit.efficiency}
    return Calibrated(replace(old, tables=found.tables, set_aside=aside, **fitted), {form.family: fit})


def _with_errors(one: Calibrated, kin: dict[str, float], strange: dict[str, float]) -> Calibrated:
    """With the errors of predicting this family from other GPUs added to those of the other families."""
    own = one.calibration
    strangers = dict(sorted((own.stranger_errors | strange).items())) if strange else own.stranger_errors
    return replace(one, calibration=replace(own, kin_errors=own.kin_errors | kin, stranger_errors=strangers))


def main(arguments: Sequence[str]) -> int:
    """Fit and write; a line per file."""
    data, family = Path(arguments[0]), arguments[1]
    form = next(form for form in OPTIONAL if form.family == family)
    for name, one in refit(data, form).items():
        sys.stdout.write(f"{name}: {family} {one.fits[family].error():.1%}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
