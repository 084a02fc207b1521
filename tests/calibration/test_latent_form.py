"""The family of latent decode attention: fitted from rows, alone and into the bundled calibrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sim.calibration import bundle_family
from sim.calibration.bundle import LARGE, SMALL
from sim.calibration.calibration import fit_calibration
from sim.calibration.checks import frame
from sim.calibration.forms_latent import LatentForm
from sim.calibration.provenance import Sources
from sim.cost.constants import GENERIC, Calibration, read_calibration, read_constants
from sim.cost.latent import LatentEfficiency
from sim.hardware import read_gpu

GPU = read_gpu("h200_sxm")
TRUTH = LatentEfficiency(
    memory_efficiency=0.9, compute_efficiency=0.6, fixed_s=8e-6, exponent=5.0, wave_s=4e-6, wave_rows_s=2e-6,
    split_s=2e-6, split_row_s=2e-9, token_s=1e-9, split_tokens=4000.0, l2_efficiency=1.2, source="made up",
)  # fmt: skip
COMMON = {"gpu": GPU.name, "engine": "trtllm", "engine_version": "1", "dtype": "bf16", "kv_dtype": "bf16", "width": 1}


def rows() -> pd.DataFrame:
    """All heads, batches and contexts of a small grid at the times of TRUTH, with noise."""
    grid = np.array([
        (heads, batch, context)
        for heads in (1, 4, 16, 32, 64, 128) for batch in (1, 8, 32, 64, 128, 1024)
        for context in (15, 127, 511, 2047, 8191, 32767)
    ])  # fmt: skip
    shape = dict(zip(("heads", "batch", "context_tokens"), grid.T, strict=True))
    found = frame(
        len(grid), {**COMMON, "op": "mla_decode", "graph": True, "source": "made up", "latency_s": 1.0, **shape}
    )
    judged = LatentForm().judged(found, GPU)
    assert judged is not None
    assert len(judged.rows) == len(grid)
    noise = np.exp(np.random.default_rng(0).normal(0.0, 0.02, len(grid)))
    return found.assign(latency_s=LatentForm().price(TRUTH, judged) * noise)


@pytest.fixture(scope="module")
def found() -> Sources:
    return Sources(rows(), {"mine.parquet": "0" * 64}, {})


def test_a_fit_finds_the_constants_that_made_the_rows(found: Sources) -> None:
    one = fit_calibration(found, GPU, "trtllm", "made up", day="2026-01-01")
    assert set(one.fits) == {"attention_latent"}
    fitted = one.calibration.attention_latent
    assert fitted is not None
    assert fitted.error is not None
    assert fitted.error < 0.03
    assert fitted.compute_efficiency == pytest.approx(TRUTH.compute_efficiency, rel=0.1)
    assert fitted.memory_efficiency == pytest.approx(TRUTH.memory_efficiency, rel=0.1)


def test_rows_of_an_fp8_cache_or_of_several_tokens_do_not_count() -> None:
    other = pd.concat([rows().assign(kv_dtype="fp8"), rows().assign(width=2)], ignore_index=True)
    assert LatentForm().judged(other, GPU) is None


def test_fitting_it_into_a_calibration_leaves_the_others_numbers(
    found: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, Calibration] = {}
    recipe = next(recipe for recipe in LARGE if recipe.name == "h200_sxm_trtllm")
    monkeypatch.setattr(bundle_family, "LARGE", (recipe,))
    monkeypatch.setattr(bundle_family, "SMALL", ())
    monkeypatch.setattr(bundle_family, "gather", lambda *_: found)
    monkeypatch.setattr(bundle_family, "write", lambda calibration, name: written.update({name: calibration}))
    bundle_family.refit(Path(), LatentForm())
    old, new = read_calibration(recipe.name), written[recipe.name]
    assert new.attention_latent != old.attention_latent
    assert fields_without_it(new) == fields_without_it(old)


def fields_without_it(calibration: Calibration) -> dict[str, Any]:
    names = ("dense", "dense_fp8", "experts", "experts_fp8", "attention_prefill", "attention_decode", "allreduce")
    found: dict[str, Any] = {name: getattr(calibration, name) for name in (*names, "fitted_on", "kin", "engine")}
    errors = {key: value for key, value in calibration.kin_errors.items() if key != "attention_latent"}
    return found | {"kin_errors": errors}


def test_every_recipe_with_such_tables_has_it_and_no_other() -> None:
    """TensorRT-LLM and SGLang on Hopper, TensorRT-LLM on A100, FlashMLA on H20 and H800."""
    known = {recipe.name: read_constants(recipe.name) for recipe in (*LARGE, *SMALL)}
    own = {name for name, one in known.items() if one.attention_latent and "attention_latent" not in one.borrowed}
    assert own == {
        "h200_sxm_sglang", "h100_sxm_sglang", "h200_sxm_trtllm", "h100_sxm_trtllm", "a100_80gb_sxm_trtllm",
        "h20_sglang", "h800_sxm_sglang",
    }  # fmt: skip
    assert read_constants(GENERIC).attention_latent is None
    for name in own:
        fitted = known[name].attention_latent
        assert fitted is not None
        assert fitted.error is not None
        assert fitted.error < 0.10
