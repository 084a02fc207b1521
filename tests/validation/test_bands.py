"""Coverage of the bands: published times here, recorded runs where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.metrics.bands import LEVEL
from validation import bands, run_fit

DATA = Path(__file__).parents[3] / "shared" / "data"
recorded = pytest.mark.skipif(not (DATA / bands.ROOT / "vllm_e2e_forks").is_dir(), reason="needs vllm_e2e_forks")


def test_published_times_are_held_about_as_often_as_said():
    cases = bands.token_cases()
    assert len(cases) == 29
    assert 0.6 <= np.mean([case.held(LEVEL) for case in cases]) <= 0.95
    assert all(case.held(0.99) for case in cases)


@recorded
def test_a_stream_is_held_and_predicted_from_two_others():
    stream = run_fit.read_stream(DATA, "A10G", "cnn", 4)
    assert stream is not None
    (case,) = bands._run_cases("a10g", run_fit.deployment("llama32_1b", "a10g"), stream)
    assert case.held(0.9)
    others = [run_fit.read_stream(DATA, "A10G", "cnn", size) for size in (2, 8)]
    fit = run_fit.fit_run(
        run_fit.deployment("llama32_1b", "a10g"), [*others, stream], fitted=2, metrics=(run_fit.THROUGHPUT,)
    )
    assert abs(fit.runs[2].after[run_fit.THROUGHPUT].error) < 0.03
