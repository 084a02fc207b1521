"""Window, head and rate of a trace, and the laws that tie them together; ServeGen obeys them too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.workload import AzureTrace, BurstGptTrace, MooncakeTrace, ServeGen, SimpleTrace, Trace

FILES = {
    AzureTrace: "azure.csv",
    MooncakeTrace: "mooncake.jsonl",
    BurstGptTrace: "burstgpt.csv",
    SimpleTrace: "simple.jsonl",
    ServeGen: "servegen.jsonl",
}


@pytest.fixture(params=FILES, ids=lambda kind: kind.__name__)
def trace(request: pytest.FixtureRequest, root: Path) -> Trace:
    return request.param(path=str(root / "tests" / "data" / FILES[request.param]))


def test_the_head_is_the_beginning(trace: Trace) -> None:
    every, head = trace.requests(1), replace(trace, head=2).requests(1)
    assert np.array_equal(head.arrival_s, every.arrival_s[:2])
    assert np.array_equal(head.prompt_tokens, every.prompt_tokens[:2])
    assert len(replace(trace, head=10**6).requests(1)) == len(every)


def test_a_window_shows_the_same_requests_shifted(trace: Trace) -> None:
    every = trace.requests(1)
    start_s, end_s = every.arrival_s[1], every.arrival_s[-1]
    part = replace(trace, window_start_s=start_s, window_end_s=end_s).requests(1)
    inside = (every.arrival_s >= start_s) & (every.arrival_s < end_s)
    assert 0 < len(part) < len(every)
    assert np.array_equal(part.arrival_s, every.arrival_s[inside] - start_s)
    assert np.array_equal(part.output_tokens, every.output_tokens[inside])


def test_two_windows_that_touch_share_nothing_and_miss_nothing(trace: Trace) -> None:
    cut_s = float(np.median(trace.requests(1).arrival_s)) + 1e-3
    parts = [replace(trace, window_end_s=cut_s), replace(trace, window_start_s=cut_s)]
    assert sum(len(part.requests(1)) for part in parts) == len(trace.requests(1))


def test_rate_scale_divides_every_arrival(trace: Trace) -> None:
    every, fast = trace.requests(1), replace(trace, rate_scale=4.0).requests(1)
    assert np.array_equal(fast.arrival_s * 4, every.arrival_s)
    assert np.array_equal(fast.prompt_tokens, every.prompt_tokens)


@pytest.mark.parametrize("selection", [{}, {"head": 3}, {"window_start_s": 0.1}])
def test_rate_per_s_is_the_mean_rate_of_what_was_selected(trace: Trace, selection: dict[str, float]) -> None:
    arrival_s = replace(trace, rate_per_s=2.5, **selection).requests(1).arrival_s
    assert (len(arrival_s) - 1) / (arrival_s[-1] - arrival_s[0]) == pytest.approx(2.5)


def test_the_seed_matters_only_where_something_is_drawn(trace: Trace) -> None:
    one, same, other = (trace.requests(seed).arrival_s.tobytes() for seed in (1, 1, 2))
    assert one == same
    assert (one == other) != isinstance(trace, ServeGen)


def test_a_window_without_requests_is_refused(trace: Trace) -> None:
    with pytest.raises(ValueError, match=r"no request left in workload\.window_start_s=1000000\.0"):
        replace(trace, window_start_s=1e6).requests(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_scale": 0.0}, r"workload\.rate_scale must be > 0, got 0"),
        ({"rate_per_s": -2.0}, r"workload\.rate_per_s must be > 0, got -2"),
        (
            {"rate_per_s": 2.0, "rate_scale": 3.0},
            r"workload\.rate_scale has no effect beside rate_per_s=2\.0, got 3\.0",
        ),
        ({"head": 0}, r"workload\.head must be >= 1, got 0"),
        ({"window_start_s": -1.0}, r"workload\.window_start_s must be >= 0, got -1"),
        ({"window_start_s": 5.0, "window_end_s": 5.0}, r"workload\.window_end_s must be > 5\.0, got 5\.0"),
    ],
)
def test_bad_settings_are_refused(trace: Trace, change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(trace, **change)


def test_a_rate_needs_two_instants(root: Path) -> None:
    trace = MooncakeTrace(path=str(root / "tests" / "data" / "mooncake.jsonl"), head=2, rate_per_s=1.0)
    with pytest.raises(ValueError, match=r"workload\.rate_per_s needs arrivals at two instants"):
        trace.requests(0)


def test_servegen_gaps_follow_the_shape_of_their_window(tmp_path: Path) -> None:
    lengths = '{"0": {"input_tokens": {"9": 1.0}, "output_tokens": {"9": 1.0}}}'
    for law, shape, cv in (("Gamma", 1.0, 1.0), ("Gamma", 0.25, 2.0), ("Weibull", 1.0, 1.0), ("Weibull", 0.5, 5**0.5)):
        path = tmp_path / "client.jsonl"
        path.write_text(f'{{"client": 0, "trace": [[0, 100, 1, "{law}", {shape}, 1]], "dataset": {lengths}}}')
        arrival_s = ServeGen(path=str(path)).requests(1).arrival_s
        gaps = np.diff(arrival_s)
        assert len(arrival_s) == 60_000
        assert 599 < arrival_s[-1] <= 600
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
