"""Calibration files: read, bounded, and chosen by kinship with a note."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from sim.cost.constants import (
    FAMILIES,
    GENERIC,
    AllReduce,
    Calibration,
    calibrated,
    calibration_names,
    completed,
    read_calibration,
    read_constants,
)
from sim.cost.efficiency import Efficiency
from sim.cost.kinship import constants_for, generic_constants
from sim.cost.work import Peaks, Work
from sim.hardware import known_gpus, read_gpu, read_link

PEAKS = Peaks(1e15, 1e12, 100)


@pytest.mark.parametrize(
    ("gpu", "engine", "chosen", "note"),
    [
        ("h200_sxm", "vllm", "h200_sxm", "constants of h200_sxm under vllm"),
        ("h20", "sglang", "h20", "dense GEMM, experts from h100_sxm under sglang"),
        ("h100_pcie", "vllm", "h100_sxm", "nearest of its architecture hopper; error to expect from kin: experts"),
        ("h20", "vllm", "h20", "vllm was not measured on this GPU"),
        ("a800_80gb_sxm", "sglang", "a100_80gb_sxm", "nearest of its architecture ampere"),
        ("l40", "vllm", "l40s", "nearest of its architecture ada"),
        ("rtx_pro_6000", "vllm", "rtx_pro_6000", "constants of rtx_pro_6000 under vllm"),
        ("b200", "vllm", "h200_sxm", "extrapolation: "),
        (
            "mi300x",
            "vllm",
            "h200_sxm",
            "no GPU of its architecture cdna3 on enough shapes; error to expect across arch",
        ),
    ],
)
def test_nearest_kin(gpu: str, engine: str, chosen: str, note: str) -> None:
    constants, text = constants_for(read_gpu(gpu), engine)
    assert constants.gpu == chosen
    assert note in text
    assert "experts" in text


def test_kin_can_be_chosen_and_must_exist() -> None:
    constants, note = constants_for(read_gpu("b200"), "vllm", kin="rtx_pro_6000_vllm")
    assert constants.gpu == "rtx_pro_6000"
    assert "constants of rtx_pro_6000 under vllm" in note
    with pytest.raises(ValueError, match=r"cost\.kin must be one of a100_80gb_sxm_sglang, .*, got 'b200_vllm'"):
        constants_for(read_gpu("b200"), "vllm", kin="b200_vllm")


def test_every_catalogued_gpu_finds_constants() -> None:
    measured = {read_gpu(constants.gpu).architecture for constants in calibrated()}
    for name in known_gpus():
        gpu = read_gpu(name)
        constants, note = constants_for(gpu, "vllm", read_link(gpu.link))
        assert constants.architecture == gpu.architecture or note.startswith("extrapolation")
        if gpu.architecture not in measured:
            assert note.startswith("extrapolation")


def test_all_reduce_follows_the_kind_of_link() -> None:
    gpu = read_gpu("h100_sxm")
    own, _ = constants_for(gpu, "vllm", read_link("nvlink4"))
    over_pcie, note = constants_for(gpu, "vllm", read_link("pcie5_x16"))
    assert own.allreduce.link_kind == "nvlink"
    assert over_pcie.allreduce.link_kind == "pcie"
    assert over_pcie.dense == own.dense
    assert "all-reduce over pcie as on l40s" in note
    assert "never measured" in constants_for(gpu, "vllm", read_link("infiniband_ndr"))[1]


def test_files_say_what_is_measured_on_what() -> None:
    for name in calibration_names():
        own = read_calibration(name)
        assert name == f"{own.gpu}_{own.engine}"
        assert own.architecture == read_gpu(own.gpu).architecture
        assert own.tables
        assert all(len(digest) == 64 for digest in own.tables.values())
        found = [part for family in FAMILIES if (part := getattr(own, family)) is not None]
        assert found
        for part in found:
            assert part.measured
            assert part.source
            assert part.fit is not None
            assert part.fit.in_sample_error <= 1.05 * part.error
            assert part.fit.standard_errors.keys() <= {field.name for field in fields(part)}


def test_a_family_that_was_not_measured_is_the_kins_and_says_so() -> None:
    own = read_constants("h20_sglang")
    kin = read_constants("h100_sxm_sglang")
    assert own.experts == kin.experts
    assert own.borrowed["experts"] == "h100_sxm under sglang"
    assert own.attention_decode != kin.attention_decode
    with pytest.raises(ValueError, match=r"no constants for dense, .*set kin"):
        completed(Calibration(gpu="x", architecture="hopper", engine="vllm"), "x")


def test_any_gpu_takes_the_generic_constants_with_a_stated_error() -> None:
    constants, note = generic_constants()
    assert constants.gpu == GENERIC
    assert "errors on GPUs held out of the fit: experts" in note
    for family in FAMILIES:
        assert getattr(constants, family).error < 0.25


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
    with pytest.raises(ValueError, match="row_block must be >= 16"):
        replace(known.experts, row_block=8)
    with pytest.raises(ValueError, match="chain_exponent must be >= 1"):
        replace(known.dense, chain_exponent=0.5)
    with pytest.raises(ValueError, match="softmax_width must be >= 0"):
        replace(known.attention_prefill, softmax_width=-1.0)
    with pytest.raises(ValueError, match="tile_rows must be >= 1"):
        replace(known.attention_decode, tile_rows=0)
    with pytest.raises(ValueError, match="same GPU counts"):
        AllReduce(link_kind="nvlink", latency_s={2: 1e-6}, link_efficiency={4: 0.5}, source="test")
