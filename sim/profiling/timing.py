"""Seconds of one callable: CUDA graphs, CUDA events and a flushed L2 on a GPU, a monotonic clock on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sim.profiling.place import Place

Call = Callable[[], object]

_WARM_UP = 3
_GRAPH_S = 5e-4
"""Work that one captured graph should hold, so that the launch of the graph does not count."""

_MOST_COPIES = 20


@dataclass(frozen=True, slots=True)
class Timing:
    """What was seen: median seconds of one call, their interquartile range, samples, and how it ran."""

    latency_s: float
    spread_s: float
    samples: int
    graph: bool
    l2_flushed: bool


def measure(
    call: Call, place: Place, repeats: int, *, flush: bool = True, copies: int = 0, graph: bool = True
) -> Timing:
    """Time `call`, which must enqueue the same work every time.

    On a GPU, one CUDA graph holds several copies of the call, each after a pass over a buffer larger than the L2; a
    second graph holds the passes alone, and the difference is the call. Without the launch of a graph and without idle
    gaps it is the time the call takes inside a longer graph. What cannot be captured is timed eagerly, one by one.

    Args:
        call: the work.
        place: where.
        repeats: samples, at least 3.
        flush: empty the L2 before every call (never on a CPU).
        copies: calls in one graph; 0 for as many as make the launch of the graph small.
        graph: False where the call is known to wait for the device.

    Raises:
        ValueError: repeats below 3.
        RuntimeError: the call takes less than the clock resolves.
    """
    if repeats < 3:
        raise ValueError(f"repeats must be >= 3, got {repeats}")
    if not place.is_cuda:
        _warm_up(call, place)
        return summarize([_clocked(call) for _ in range(repeats)], graph=False, flushed=False)
    if graph:
        return _measure_graph(call, place, repeats, copies, flush=flush)
    _warm_up(call, place)
    return _measure_eager(call, place, repeats, flush=flush)


def captured(call: Call, place: Place) -> tuple[Call, bool]:
    """`call` as the replay of a CUDA graph where it can be one, else itself; the flag says which."""
    if not place.is_cuda:
        return call, False
    _warm_up(call, place)
    graph = torch.cuda.CUDAGraph()
    try:
        # A process of collectives has a thread of NCCL's that would break a capture of all threads.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            call()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        torch.cuda.synchronize()
        return call, False
    return graph.replay, True


def _measure_eager(call: Call, place: Place, repeats: int, *, flush: bool) -> Timing:
    """One call between events; the sweep before it hides the launch."""
    sweep = _sweep(place) if flush else None
    samples = []
    for _ in range(repeats):
        if sweep is not None:
            sweep()
        samples.append(_between_events(call))
    return summarize(samples, graph=False, flushed=flush)


def _measure_graph(call: Call, place: Place, repeats: int, copies: int, *, flush: bool) -> Timing:
    _warm_up(call, place)
    sweep = _sweep(place) if flush else None
    copies = copies or max(1, min(_MOST_COPIES, int(_GRAPH_S / max(_between_events(call), 1e-7))))

    def timed() -> None:
        for _ in range(copies):
            if sweep is not None:
                sweep()
            call()

    def sweeps() -> None:
        for _ in range(copies):
            if sweep is not None:
                sweep()

    replay, held = captured(timed, place)
    if not held:
        return _measure_eager(call, place, repeats, flush=flush)
    base_s = 0.0
    if sweep is not None:
        empty, _ = captured(sweeps, place)
        base_s = statistics.median(_between_events(empty) for _ in range(repeats))
    samples = [(_between_events(replay) - base_s) / copies for _ in range(repeats)]
    return summarize(samples, graph=True, flushed=flush)


def _warm_up(call: Call, place: Place) -> None:
    """Compile, load and autotune outside the figures, on a side stream as capture wants it."""
    if not place.is_cuda:
        call()
        return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()


def _sweep(place: Place) -> Call:
    """A pass that writes twice the L2."""
    l2_bytes = int(torch.cuda.get_device_properties(place.device).L2_cache_size)
    buffer = torch.empty(2 * max(l2_bytes, 1 << 24), dtype=torch.int8, device=place.device)
    sweep: Call = buffer.zero_
    return sweep


def _between_events(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e-3


def _clocked(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summarize(samples: list[float], *, graph: bool, flushed: bool) -> Timing:
    """Median and interquartile range of at least two samples in seconds.

    Raises:
        RuntimeError: the median is not above zero.
    """
    latency_s = statistics.median(samples)
    if latency_s <= 0:
        raise RuntimeError(f"the call takes less than the clock resolves: median {latency_s:g} s; make the case larger")
    low, _, high = statistics.quantiles(samples, n=4)
    return Timing(latency_s, high - low, len(samples), graph, flushed)
