"""Timings on a CPU: what was asked for is what was called."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

import time
from statistics import median

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.profiling import timing as timing_module
from sim.profiling.place import Place, find_place
from sim.profiling.timing import measure, summarize

CPU = find_place("cpu", "fp32")


def test_every_sample_is_one_call_after_a_warm_up() -> None:
    calls = []

    def sleep() -> None:
        start = time.perf_counter()
        time.sleep(0.002)
        calls.append(time.perf_counter() - start)

    timing = measure(sleep, CPU, repeats=5)
    assert (len(calls), timing.samples) == (6, 5)
    assert median(calls[1:]) <= timing.latency_s < median(calls[1:]) + 0.018
    assert (timing.graph, timing.l2_flushed) == (False, False)


def test_the_median_and_the_middle_half_ignore_an_outlier() -> None:
    timing = summarize([1.0, 1.1, 1.2, 1.3, 1.4, 50.0, 1.2], graph=True, flushed=True)
    assert timing.latency_s == 1.2
    assert timing.spread_s == pytest.approx(0.3)


def test_a_larger_product_takes_longer() -> None:
    small, large = (CPU.randn(size, size) for size in (64, 512))
    assert measure(lambda: large @ large, CPU, 5).latency_s > 10 * measure(lambda: small @ small, CPU, 5).latency_s


def test_a_gpu_s_call_is_the_difference_between_graphs_with_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's arithmetic on a clock of our own: the sweep of the L2 and the launch of a graph must not count."""
    clock, calls = [0.0], []

    def spend(seconds: float) -> None:
        clock[0] += seconds

    def work() -> None:
        calls.append(1)
        spend(1e-4)

    _as_on_a_gpu(monkeypatch, clock, launch_s=5e-6, graph=True)
    monkeypatch.setattr(timing_module, "_sweep", lambda _: lambda: spend(3e-4))
    timing = measure(work, CPU, repeats=9)
    assert timing.latency_s == pytest.approx(1e-4)
    assert (timing.graph, timing.l2_flushed) == (True, True)
    assert len(calls) > 2 * 9  # several in every graph


def test_what_no_graph_can_hold_is_timed_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def work() -> None:
        clock[0] += 1e-3

    _as_on_a_gpu(monkeypatch, clock, launch_s=5e-6, graph=False)
    timing = measure(work, CPU, 5, flush=False)
    assert timing.latency_s == pytest.approx(1e-3 + 5e-6)
    assert (timing.graph, timing.l2_flushed) == (False, False)


def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, clock: list[float], launch_s: float, graph: bool) -> None:
    def between_events(call) -> float:
        start = clock[0]
        clock[0] += launch_s
        call()
        return clock[0] - start

    monkeypatch.setattr(Place, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(timing_module, "_warm_up", lambda call, _: call())
    monkeypatch.setattr(timing_module, "captured", lambda call, _: (call, graph))
    monkeypatch.setattr(timing_module, "_between_events", between_events)


def test_what_the_clock_cannot_resolve_is_refused() -> None:
    with pytest.raises(RuntimeError, match="less than the clock resolves"):
        summarize([0.0, -1e-9, 0.0], graph=True, flushed=True)
    with pytest.raises(ValueError, match="repeats must be >= 3, got 2"):
        measure(lambda: None, CPU, 2)
