"""Calibration files: read, bounded, and chosen by kinship with a note."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.cost.constants import AllReduce, Efficiency, calibrated, constants_for
from sim.cost.work import Peaks, Work
from sim.hardware import known_gpus, read_gpu, read_link

PEAKS = Peaks(1e15, 1e12, 100)


@pytest.mark.parametrize(
    ("gpu", "engine", "chosen", "note"),
    [
        ("h200_sxm", "vllm", "h200_sxm", "constants of h200_sxm under vllm"),
        ("h200_sxm", "sglang", "h200_sxm", "sglang was not measured on this GPU"),
        ("h800_sxm", "vllm", "h100_sxm", "nearest of its architecture hopper"),
        ("h20", "vllm", "h100_sxm", "nearest of its architecture hopper"),
        ("a800_80gb_sxm", "sglang", "a100_80gb_sxm", "nearest of its architecture ampere"),
        ("l4", "vllm", "l40s", "nearest of its architecture ada"),
        ("b200", "vllm", "h200_sxm", "extrapolation: "),
        ("mi300x", "vllm", "h200_sxm", "no GPU of its architecture cdna3"),
    ],
)
def test_nearest_kin(gpu: str, engine: str, chosen: str, note: str) -> None:
    constants, text = constants_for(read_gpu(gpu), engine)
    assert constants.gpu == chosen
    assert note in text
    assert "experts" in text


def test_every_catalogued_gpu_finds_constants() -> None:
    for name in known_gpus():
        gpu = read_gpu(name)
        constants, _ = constants_for(gpu, "vllm", read_link(gpu.link))
        assert constants.architecture == gpu.architecture or gpu.architecture in ("blackwell", "cdna3", "cdna4")


def test_all_reduce_follows_the_kind_of_link() -> None:
    gpu = read_gpu("h100_sxm")
    own, _ = constants_for(gpu, "vllm", read_link("nvlink4"))
    over_pcie, note = constants_for(gpu, "vllm", read_link("pcie5_x16"))
    assert own.allreduce.link_kind == "nvlink"
    assert over_pcie.allreduce.link_kind == "pcie"
    assert over_pcie.dense == own.dense
    assert "all-reduce over pcie as on l40s" in note
    assert "never measured" in constants_for(gpu, "vllm", read_link("infiniband_ndr"))[1]


def test_files_say_what_is_measured() -> None:
    for constants in calibrated():
        for part in (constants.dense, constants.experts, constants.attention_prefill, constants.attention_decode):
            assert part.measured
            assert part.source
        assert not constants.elementwise.measured
        assert constants.architecture == read_gpu(constants.gpu).architecture


def test_roofline_bends_from_memory_to_compute() -> None:
    efficiency = Efficiency(memory_efficiency=0.8, compute_efficiency=0.5, fixed_s=1e-6, source="test")
    assert efficiency.seconds(Work(), PEAKS) == 0
    assert efficiency.seconds(Work(0.0, 1e6), PEAKS) == pytest.approx(1e-6 + 1e6 / 0.8e12)
    assert efficiency.seconds(Work(1e12, 1e6), PEAKS) == pytest.approx(1e-6 + 1e12 / 0.5e15)
    assert efficiency.seconds(Work(0.0, 1e6), PEAKS, calls=4) == pytest.approx(4e-6 + 1e6 / 0.8e12)
    work = Work(np.geomspace(1e6, 1e13, 50), 1e7)
    for exponent in (1.0, 2.2, np.inf):
        seconds = replace(efficiency, exponent=exponent).seconds(work, PEAKS)
        assert np.all(seconds >= work.bound_s(PEAKS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_efficiency": 1.2}, r"memory_efficiency must lie in \(0, 1\].*1.2"),
        ({"compute_efficiency": 0.0}, "compute_efficiency must lie"),
        ({"fixed_s": -1e-6}, "fixed_s must be >= 0"),
        ({"fixed_s": float("nan")}, "fixed_s must be >= 0"),
        ({"exponent": 0.5}, "exponent must be >= 1"),
    ],
)
def test_bounds(change: dict[str, float], message: str) -> None:
    good = {"memory_efficiency": 0.8, "compute_efficiency": 0.5, "fixed_s": 1e-6, "exponent": 2.0}
    with pytest.raises(ValueError, match=message):
        Efficiency(**(good | change), source="test")


def test_subclass_bounds() -> None:
    known = calibrated()[0]
    with pytest.raises(ValueError, match="row_block must be >= 0"):
        replace(known.experts, row_block=-1)
    with pytest.raises(ValueError, match="tile_rows must be >= 1"):
        replace(known.attention_decode, tile_rows=0)
    with pytest.raises(ValueError, match="same GPU counts"):
        AllReduce(link_kind="nvlink", latency_s={2: 1e-6}, link_efficiency={4: 0.5}, source="test")
