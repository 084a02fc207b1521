"""The choice behind `cost=`: what is taken, what is said about it, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sim.cost.pricing import Analytic, Auto, Fitted, Table
from sim.cost.routing import Uniform
from sim.cost.shape import StepShape
from sim.hardware import read_gpu, read_link
from tests.cost.examples import QWEN3_30B, QWEN3_32B

H200 = read_gpu("h200_sxm")


def test_auto_takes_the_gpus_own_constants_and_says_how_good_they_are() -> None:
    constants, note = Auto().constants(H200, None)
    assert (constants, note) == (Fitted().constants(H200, None)[0], f"fitted: {Fitted().note(H200, None)}")
    assert constants.experts.error is not None
    assert f"experts {constants.experts.error:.0%}" in note


def test_analytic_prices_every_gpu_alike() -> None:
    h100, l40s = (Analytic().constants(read_gpu(name), None)[0] for name in ("h100_sxm", "l40s"))
    assert h100 == l40s


def test_analytic_comes_within_its_stated_error_of_the_fitted_price() -> None:
    link, shape = read_link(H200.link), StepShape(sequences=32, context_tokens=64_000)
    prices = [
        float(model.forward(QWEN3_30B, H200, link, 1, False, Uniform()).seconds(shape))
        for model in (Analytic(), Fitted())
    ]
    assert prices[0] == pytest.approx(prices[1], rel=0.25)


def test_weights_of_one_byte_are_multiplied_in_fp8_where_the_gpu_can() -> None:
    shape = StepShape(prefill_tokens=4096, chunks=1, prefill_pairs=4096 * 4097 // 2)
    seconds = {}
    for gpu_name in ("h200_sxm", "a100_80gb_sxm"):
        gpu = read_gpu(gpu_name)
        for weight_bytes in (2.0, 1.0):
            model = replace(QWEN3_32B, weight_bytes=weight_bytes)
            cost = Auto().forward(model, gpu, read_link(gpu.link), 1, False, Uniform())
            seconds[gpu_name, weight_bytes] = float(cost.tokenwise(shape)["gemm"])
    assert seconds["h200_sxm", 1.0] < 0.75 * seconds["h200_sxm", 2.0]
    assert 0.9 * seconds["a100_80gb_sxm", 2.0] < seconds["a100_80gb_sxm", 1.0] <= seconds["a100_80gb_sxm", 2.0]


def test_kin_replaces_the_choice() -> None:
    assert Fitted(kin="l40s_vllm").constants(H200, None)[0].gpu == "l40s"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Fitted(kernels="tgi"), "cost.kernels must be one of vllm, sglang, trtllm, got 'tgi'"),
        (lambda: Fitted(kin="l40s_vllm", path="x.yaml"), "cost.kin has no effect beside cost.path"),
        (lambda: Auto(kernels="tgi"), "cost.kernels must be one of"),
        (lambda: Auto(tables="no such folder"), "cost.tables must be a folder"),
        (lambda: Table(path=""), "cost.path must name a kernel table"),
    ],
)
def test_bad_settings_are_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mine"):
        Table(path=str(tmp_path / "mine.parquet")).constants(H200, None)
    with pytest.raises(FileNotFoundError, match="no kernel table"):
        Table(path=str(tmp_path / "mine.parquet")).table()
