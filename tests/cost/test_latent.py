"""Decode attention over MLA's latent cache: whose constants, and what they must keep to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.calibration.forms_latent import latent_rank
from sim.cost.constants import calibrated, read_constants
from sim.cost.errors import ASSUMED, UNKNOWN, deviation, family_errors
from sim.cost.forward import ForwardCost
from sim.cost.kinship import constants_for, generic_constants
from sim.cost.latent import LatentEfficiency
from sim.cost.routing import Uniform
from sim.cost.shape import StepShape
from sim.cost.work import Peaks
from sim.hardware import Gpu, read_gpu, read_link
from sim.model import read_model
from tests.cost.examples import DEEPSEEK_V2_LITE

MEASURED_US = {511: 60.29, 2047: 146.98, 8191: 497.80, 32767: 1958.0}
"""128 sequences, 128 heads: H200, SGLang 0.5.14 (AIConfigurator database, Apache-2.0)."""

OWN = [
    constants
    for constants in calibrated()
    if constants.attention_latent and not constants.borrowed.get("attention_latent")
]


def peaks_of(name: str) -> Peaks:
    gpu = read_gpu(name)
    return Peaks(gpu.flops_per_s("bf16"), gpu.memory_bandwidth_bytes_per_s, gpu.sm_count)


def latent_of(name: str) -> LatentEfficiency:
    found = read_constants(name).attention_latent
    assert found is not None
    return found


def test_the_cache_is_read_once_and_whole_tiles_are_multiplied() -> None:
    shape = StepShape(sequences=8, context_tokens=8 * 10_000)
    few, tile, all_heads = (latent_rank(heads).latent_core(shape, 64) for heads in (16, 64, 128))
    cache = 8 * 10_001 * 576 * 2
    for core, heads in ((few, 16), (all_heads, 128)):
        assert core.work.bytes == pytest.approx(cache + 2 * 8 * heads * 1088)
    assert few.work.flops == tile.work.flops == all_heads.work.flops / 2
    assert all_heads.work.flops == latent_rank(128).decode_work(shape).flops
    reread = latent_rank(128).decode_core(shape, 64)
    assert reread.work.bytes > all_heads.work.bytes + 0.9 * cache


def test_tokens_of_a_sequence_share_tiles_as_heads_do() -> None:
    four = latent_rank(16).latent_core(StepShape(sequences=8, width=4, context_tokens=8 * 10_000), 64)
    assert four.blocks == 8
    assert four.rows == 8 * 64


@pytest.mark.parametrize("constants", OWN, ids=lambda constants: f"{constants.gpu}_{constants.engine}")
def test_no_price_beats_the_hard_bound_and_more_work_costs_no_less(constants) -> None:
    peaks, efficiency = peaks_of(constants.gpu), constants.attention_latent
    batch = np.arange(1, 400)
    for heads in (1, 16, 128):
        rank = latent_rank(heads)
        for width in (1, 4):
            for context in (1, 200, 500, 4000, 100_000):
                shape = StepShape(sequences=batch, width=width, context_tokens=batch * context)
                seconds = np.asarray(rank.latent(shape, efficiency, peaks))
                assert np.all(seconds >= np.asarray(rank.decode_work(shape).bound_s(peaks)))
                assert np.all(np.diff(seconds) >= -1e-9 * seconds[:-1])
        contexts = np.unique(np.geomspace(1, 200_000, 300).astype(np.int64))
        seconds = np.asarray(rank.latent(StepShape(sequences=8, context_tokens=8 * contexts), efficiency, peaks))
        assert np.all(np.diff(seconds) >= -1e-9 * seconds[:-1])
    assert rank.latent(StepShape(), efficiency, peaks) == 0


def test_it_follows_the_measured_column() -> None:
    contexts = np.array(list(MEASURED_US))
    shape = StepShape(sequences=128, context_tokens=128 * contexts)
    seconds = np.asarray(latent_rank(128).latent(shape, latent_of("h200_sxm_sglang"), peaks_of("h200_sxm")))
    assert np.abs(1e6 * seconds / np.array(list(MEASURED_US.values())) - 1).mean() < 0.10


def test_twice_as_slow_kernels_take_twice_as_long() -> None:
    efficiency, peaks = latent_of("h100_sxm_trtllm"), peaks_of("h100_sxm")
    shape = StepShape(sequences=64, context_tokens=64 * np.array([100, 5000, 50_000]))
    once, twice = (np.asarray(latent_rank(128).latent(shape, e, peaks)) for e in (efficiency, efficiency.slowed(2.0)))
    assert twice == pytest.approx(2 * once)
    with pytest.raises(ValueError, match=r"wave_exponent must be >= 1, got 0\.5"):
        replace(efficiency, wave_exponent=0.5)


@pytest.mark.parametrize(
    ("gpu", "engine", "owner"),
    [
        ("h200_sxm", "vllm", "h200_sxm_sglang"),
        ("h100_sxm", "vllm", "h100_sxm_sglang"),
        ("h200_sxm", "trtllm", "h200_sxm_trtllm"),
        ("a100_80gb_sxm", "vllm", None),
        ("l40s", "trtllm", None),
    ],
)
def test_a_gpu_without_its_own_takes_those_of_kin_with_the_same_kernels(
    gpu: str, engine: str, owner: str | None
) -> None:
    constants, note = constants_for(read_gpu(gpu), engine)
    if owner is None:
        assert constants.attention_latent is None
        assert "MLA" not in note
        return
    assert constants.attention_latent == latent_of(owner)
    borrowed = f"decode attention of MLA models from {owner.replace('_sglang', ' under sglang')}"
    assert (borrowed in note) == (not owner.endswith(engine))


def test_only_latent_layers_are_priced_with_them() -> None:
    gpu = read_gpu("h200_sxm")
    constants, _ = constants_for(gpu, "vllm")
    without = replace(constants, attention_latent=None)
    shape = StepShape(sequences=64, context_tokens=64 * 4000)

    def attention_s(model: str, known: object) -> float:
        cost = ForwardCost(
            model=read_model(model), gpu=gpu, link=read_link("nvlink4"), constants=known, routing=Uniform()
        )
        return float(cost.attention(shape)["attention_decode"])

    assert attention_s("deepseek_v3", constants) < 0.8 * attention_s("deepseek_v3", without)
    assert attention_s("qwen3_30b_a3b", constants) == attention_s("qwen3_30b_a3b", without)
    assert generic_constants()[0].attention_latent is None


def test_bands_take_the_error_of_latent_decode() -> None:
    gpu = read_gpu("h200_sxm")

    def deviation_of(engine: str, priced: Gpu) -> float:
        constants, _ = constants_for(gpu, engine)
        cost = ForwardCost(
            model=DEEPSEEK_V2_LITE, gpu=priced, link=read_link("nvlink4"), constants=constants, routing=Uniform()
        )
        return family_errors(cost)["attention_decode"]

    assert deviation_of("trtllm", gpu) == pytest.approx(deviation(latent_of("h200_sxm_trtllm").error))
    assert deviation_of("vllm", gpu) == pytest.approx(deviation(ASSUMED))
    assert deviation_of("trtllm", read_gpu("mi300x")) == pytest.approx(deviation(UNKNOWN))
