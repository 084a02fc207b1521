"""`cost.kernel_factor`: every kernel takes so many times as long, none beats the peak rates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim import Uniform, load_model
from sim.cost.pricing import Analytic, Auto, Fitted
from sim.cost.shape import StepShape
from sim.hardware import read_gpu, read_link

GPU = read_gpu("h200_sxm")
SHAPES = StepShape(
    sequences=np.array([1, 64, 0]),
    context_tokens=np.array([800, 90_000, 0]),
    chunks=np.array([0, 0, 2]),
    prefill_tokens=np.array([0, 0, 3000]),
    prefill_pairs=np.array([0, 0, 2_300_000]),
    completed=np.array([0, 0, 2]),
)


def forward(kind, factor, model="qwen3_30b_a3b"):
    link = read_link(GPU.link)
    return kind(kernel_factor=factor).forward(load_model(model, "model"), GPU, link, 2, False, Uniform())


@pytest.mark.parametrize("kind", [Auto, Fitted, Analytic])
@pytest.mark.parametrize("model", ["qwen3_30b_a3b", "qwen3_8b"])
def test_slower_kernels_take_the_factor_family_by_family(kind, model):
    base, slower = (forward(kind, factor, model).families(SHAPES) for factor in (1.0, 1.3))
    for name, seconds in base.items():
        assert np.asarray(slower[name]) == pytest.approx(1.3 * np.asarray(seconds), rel=1e-9), name


@pytest.mark.parametrize("factor", [0.95, 0.7, 0.3])
def test_faster_kernels_never_beat_the_bound(factor):
    base, faster = forward(Fitted, 1.0), forward(Fitted, factor)
    assert (faster.seconds(SHAPES) >= faster.bounds(SHAPES)).all()
    assert (faster.seconds(SHAPES) < base.seconds(SHAPES)).all()
    assert (faster.seconds(SHAPES) >= factor * base.seconds(SHAPES) * (1 - 1e-9)).all()


def test_the_note_says_so():
    assert Auto(kernel_factor=1.1).note(GPU, None) == f"{Auto().note(GPU, None)}; all kernels x 1.1"


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_what_is_no_factor(factor):
    with pytest.raises(ValueError, match=r"cost.kernel_factor must be > 0 and finite"):
        Fitted(kernel_factor=factor)
