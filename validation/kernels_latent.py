"""Decode over MLA's latent cache against measured kernels: fitted with heads held out, borrowed, under GQA's constants.

A shape is a number of query heads on the GPU: 128, 64 and so on down to one, of DeepSeek's 128. The tables have one
token per sequence alone, so prices of several are the form's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sim.calibration.bundle import LARGE, READERS, SMALL, Recipe, gather
from sim.calibration.fit import Floats, relative_error
from sim.calibration.fit_family import FamilyFit, fit_family
from sim.calibration.form import Judged
from sim.calibration.forms_attention import decoding
from sim.calibration.forms_latent import LatentForm, latent_rank
from sim.calibration.pooled import predicted_from
from sim.cost.constants import Constants, read_constants
from sim.cost.kinship import constants_for
from sim.hardware import read_gpu
from validation.checks import Check

SUITE = "kernels"
METRIC = "mean absolute relative error"

BAR, GOAL = 0.12, 0.08
"""Set after the figures had been seen."""

ALL_HEADS = 128
GROWTH_FROM, GROWTH_TO = 1024, 16_384


def checks(data: Path) -> Iterator[Check]:
    """Fitted figures of every calibration with such rows, then those of constants borrowed for vLLM."""
    for recipe in (*LARGE, *SMALL):
        try:
            judged = LatentForm().judged(gather(_latent_alone(recipe), data).rows, read_gpu(recipe.gpu), eager=recipe.eager)
        except FileNotFoundError:
            continue
        if judged is not None:
            base = read_constants(recipe.kin).attention_latent if recipe in SMALL else None
            fit = fit_family(LatentForm(), judged, recipe.said, base)
            yield from _fitted(fit, recipe)
    yield from _modules(data)


def _latent_alone(recipe: Recipe) -> Recipe:
    from dataclasses import replace

    return replace(recipe, patterns=tuple(p for p in recipe.patterns if "mla/" in p), only_fp8=())
