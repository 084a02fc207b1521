"""Against measured kernels: quoted columns of published tables, and the tables themselves where they are at hand.

The quoted figures are medians of the AIConfigurator database (Apache-2.0), H200 under vLLM 0.24.0, in microseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.calibration.bundle import JUDGED, LARGE, gather
from sim.calibration.forms import FORMS
from sim.cost.constants import read_calibration, read_constants
from sim.cost.moe import RankExperts
from sim.cost.work import Gemm
from sim.hardware import read_gpu
from sim.layers import Ffn
from tests.cost.examples import on

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TOKENS = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
MOE_US = {  # (hidden, width, E, K), balanced routing
    (2048, 768, 128, 8): [40.3, 57.8, 94.3, 172, 305, 305, 316, 316, 339, 350, 406, 462, 691],
    (4096, 1536, 128, 8): [96, 164, 298, 575, 1097, 1105, 1130, 1169, 1196, 1232, 1377, 1486, 2348],
    (4096, 14336, 8, 2): [212, 348, 668, 657, 664, 689, 673, 688, 753, 798, 1093, 2101, 4222],
}
GEMM_US = {1: 28.7, 16: 30.9, 64: 29.1, 128: 29.3, 192: 36.3, 256: 37.5, 512: 63.8, 1024: 127.5, 4096: 525.0}
"""n = 12,288, k = 4,096."""


def error(predicted: Any, measured: Any) -> float:
    return float(np.mean(np.abs(np.asarray(predicted) / np.asarray(measured) - 1.0)))


def balanced(tokens: Any, experts: Any, per_token: Any) -> Any:
    """Round-robin routing of the benchmark: as many experts as there are rows."""
    return np.minimum(experts, np.multiply(tokens, per_token)).astype(float)


@pytest.mark.parametrize(("shape", "bound"), list(zip(MOE_US, (0.06, 0.06, 0.12), strict=True)))
def test_moe_layer_follows_the_measured_column(shape: tuple[int, int, int, int], bound: float) -> None:
    hidden, width, experts, per_token = shape
    constants, peaks = on("h200_sxm")
    ffn = Ffn(kind="moe", experts=experts, experts_per_token=per_token, expert_width=width)
    layer = RankExperts(ffn, hidden, 2.0)
    seconds = layer.seconds(balanced(TOKENS, experts, per_token), TOKENS, constants.experts, peaks)
    assert error(1e6 * np.asarray(seconds), MOE_US[shape]) < bound


def test_dense_gemm_follows_the_measured_column() -> None:
    constants, peaks = on("h200_sxm")
    seconds = constants.dense.gemm_s(Gemm(np.array(list(GEMM_US)), 12288.0, 4096.0), peaks)
    assert error(1e6 * np.asarray(seconds), list(GEMM_US.values())) < 0.10


@pytest.mark.parametrize("name", JUDGED)
def test_the_committed_constants_reach_the_error_they_state(name: str) -> None:
    """On the tables they were fitted on: the file's figure, to half a point."""
    recipe = next(recipe for recipe in LARGE if recipe.name == name)
    if not DATA.is_dir():
        pytest.skip("no shared data beside the repository")
    try:
        found = gather(recipe, DATA)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    assert found.tables == read_calibration(name).tables
    constants = read_constants(name)
    for form in FORMS:
        judged = form.judged(found.rows, read_gpu(recipe.gpu))
        assert judged is not None
        efficiency = getattr(constants, form.family)
        usable = ~judged.faster_than_memory | judged.in_l2
        seconds = form.price(efficiency, judged)
        assert efficiency.fit.rows == usable.sum()
        usable &= form.headline(judged.rows)
        assert error(seconds[usable], judged.measured_s[usable]) == pytest.approx(
            efficiency.fit.in_sample_error, abs=5e-3
        )
