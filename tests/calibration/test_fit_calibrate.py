"""From a kernel trace to files that price a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sim.calibration.calibrate import Written, calibrate, main
from sim.calibration.trace import write_frame
from sim.cost.pricing import Auto, Fitted, Table
from sim.cost.routing import Uniform
from sim.cost.shape import StepShape
from sim.hardware import read_gpu, read_link
from tests.calibration.synthetic import DENSE, GPU, decode_rows, dense_rows
from tests.cost.examples import QWEN3_32B


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "mine.parquet"
    bad = dense_rows(shapes=1).iloc[:3].assign(latency_s=[0.0, -1.0, float("nan")], m=[3, 5, 7])
    write_frame(path, pd.concat([dense_rows(), decode_rows(), bad], ignore_index=True))
    return path


@pytest.fixture(scope="module")
def written(trace: Path) -> Written:
    return calibrate([trace], out=trace.parent / "out")


def test_what_cannot_be_used_is_set_aside_with_its_count(written: Written) -> None:
    assert sum(written.calibrated.calibration.set_aside.values()) == 3


def test_constants_are_written_with_their_provenance(written: Written, trace: Path) -> None:
    constants, note = Fitted(path=str(written.yaml)).constants(GPU, None)
    assert constants.dense.memory_efficiency == pytest.approx(DENSE.memory_efficiency, rel=0.05)
    assert constants.dense.fit is not None
    assert constants.dense.fit.groups == 12
    assert constants.borrowed["experts"] == "h100_sxm under vllm"
    assert "experts, prefill attention from h100_sxm under vllm" in note
    assert len(written.calibrated.calibration.tables["mine.parquet"]) == 64
    assert trace.name in constants.dense.source


def test_a_table_gives_the_measured_rows_back_and_never_beats_the_bound(written: Written) -> None:
    fit = written.calibrated.fits["dense"]
    table = Table(path=str(written.table)).table()
    constants, note = Table(path=str(written.table)).constants(GPU, None)
    gemm = fit.judged.case
    for row in range(0, len(fit.judged.rows), 37):
        one = type(gemm)(gemm.m[row], gemm.n[row], gemm.k[row])
        seconds = table.gemm_s(one, "bf16", constants.dense, fit.judged.peaks)
        bound_s = one.work.bound_s(fit.judged.peaks)
        assert seconds >= bound_s
        assert seconds == pytest.approx(max(fit.judged.measured_s[row], float(bound_s)), rel=0.03)
    assert "interpolated" in note


def test_auto_prefers_the_table_of_the_gpu(written: Written) -> None:
    auto = Auto(tables=str(written.table.parent))
    assert auto.note(GPU, None).startswith("table: ")
    assert auto.note(read_gpu("l40s"), None).startswith("fitted: ")
    link = read_link(GPU.link)
    shape = StepShape(sequences=np.arange(1, 65), context_tokens=1000 * np.arange(1, 65))
    cost = auto.forward(QWEN3_32B, GPU, link, 1, False, Uniform())
    assert cost.table is not None
    assert np.all(cost.seconds(shape) >= cost.bounds(shape))


def test_a_calibration_of_another_gpu_is_refused(written: Written) -> None:
    with pytest.raises(ValueError, match="calibration of h100_sxm, but the cluster has l40s"):
        Fitted(path=str(written.yaml)).constants(read_gpu("l40s"), None)


def test_the_page_shows_every_family_by_size(written: Written) -> None:
    text = written.page.read_text()
    figures = json.loads(text.split('id="figures">')[1].split("</script>")[0])
    assert set(figures) == {"dense-times", "dense-sizes", "attention_decode-times", "attention_decode-sizes"}
    for name in figures:
        assert f'id="fig-{name}"' in text
    points = figures["dense-times"]["data"][0]
    assert np.asarray(points["y"]) / np.asarray(points["x"]) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "traces must name at least one kernel trace"),
        (["trace=a"], "words must be one of traces=..."),
        (["traces=missing.parquet"], "no kernel trace missing.parquet"),
    ],
)
def test_bad_words_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_gpu_that_the_trace_lacks_is_refused(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"traces={trace}", "gpu=l40s"]) == 2
    assert "gpu must be one of h100_sxm" in capsys.readouterr().err
