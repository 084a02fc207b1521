"""Where in time a simulated run departs from the measured one, and what the simulated replicas did then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.compare.measured import Columns
from sim.cost.lines import TICKS_PER_S
from sim.result import Result

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time since the first arrival; None where no request tells.

    TTFT is of the requests that arrived in it. TPOT is of those that decoded in it, each weighted by the part of its
    measured decoding that fell in. A `share` is what the window adds to the relative error of the run's mean: the
    shares of all windows sum to it.

    Attributes:
        start_s, end_s: bounds.
        arrivals: requests that arrived in it.
        measured_ttft_s, simulated_ttft_s, ttft_share: mean time to first token.
        measured_tpot_s, simulated_tpot_s, tpot_share: mean time per output token after the first.
        measured_in_flight, simulated_in_flight: requests between arrival and end, mean over the window.
        running, waiting: simulated requests in steps and in queues, mean over the window, all replicas.
        prefill_tokens_per_s: simulated prefill.
        step_s: mean simulated step; None where none ran.
        kv_use: simulated share of the KV blocks that are taken, mean over window and replicas.
    """

    start_s: float
    end_s: float
    arrivals: int
    measured_ttft_s: float | None
    simulated_ttft_s: float | None
    ttft_share: float
    measured_tpot_s: float | None
    simulated_tpot_s: float | None
    tpot_share: float
    measured_in_flight: float
    simulated_in_flight: float
    running: float
    waiting: float
    prefill_tokens_per_s: float
    step_s: float | None
    kv_use: float


def windows_of(result: Result, measured: Columns, simulated: Columns, count: int) -> list[Window]:
    """`count` windows of equal length over the measured run.

    Args:
        result: the simulated run.
        measured: its requests as measured, `arrival_s` known.
        simulated: the same requests, row by row, as simulated.
        count: of windows, >= 1.
    """
    assert measured.arrival_s is not None
    assert simulated.arrival_s is not None
    edges = np.linspace(0.0, float((measured.arrival_s + measured.e2e_s).max()), count + 1)
    arrived = np.clip(np.searchsorted(edges, measured.arrival_s, side="right") - 1, 0, count - 1)
    came = (arrived[:, None] == np.arange(count)).astype(np.float64)
    decoded = _decoding(measured, edges)
    ttft = _means(came, measured.ttft_s, simulated.ttft_s)
    tpot = _means(decoded, np.nan_to_num(measured.tpot_s), np.nan_to_num(simulated.tpot_s))
    flight = [_in_flight(columns, edges) for columns in (measured, simulated)]
    state = _state(result, edges)
    return [
        Window(
            start_s=float(edges[i]),
            end_s=float(edges[i + 1]),
            arrivals=int(came[:, i].sum()),
            measured_ttft_s=_known(ttft[0][i]),
            simulated_ttft_s=_known(ttft[1][i]),
            ttft_share=float(ttft[2][i]),
            measured_tpot_s=_known(tpot[0][i]),
            simulated_tpot_s=_known(tpot[1][i]),
            tpot_share=float(tpot[2][i]),
            measured_in_flight=float(flight[0][i]),
            simulated_in_flight=float(flight[1][i]),
            running=float(state["running"][i]),
            waiting=float(state["waiting"][i]),
            prefill_tokens_per_s=float(state["prefill_tokens_per_s"][i]),
            step_s=_known(state["step_s"][i]),
            kv_use=float(state["kv_use"][i]),
        )
        for i in range(count)
    ]


def overlaps(starts: Column, ends: Column, edges: Column) -> Column:
    """Seconds of each interval (n,) in each window (k,), as (n, k)."""
    inside = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])
    result: Column = np.maximum(inside, 0.0)
    return result


def _decoding(columns: Columns, edges: Column) -> Column:
    """Part of each request's decoding in each window (n, k); rows sum to 1, or 0 where nothing was decoded."""
    assert columns.arrival_s is not None
    first, last = columns.arrival_s + columns.ttft_s, columns.arrival_s + columns.e2e_s
    inside = overlaps(first, last, edges)
    total = inside.sum(axis=1)
    total[(total <= 0) | (columns.output_tokens < 2)] = np.inf
    parts: Column = inside / total[:, None]
    return parts


def _means(weights: Column, measured: Column, simulated: Column) -> tuple[Column, Column, Column]:
    """Weighted means of both per window (k,), NaN where nothing weighs, and the window's share of the error."""
    mass = weights.sum(axis=0)
    mass[mass == 0] = np.nan
    whole = float(weights.sum(axis=1) @ measured) or np.inf
    return weights.T @ measured / mass, weights.T @ simulated / mass, weights.T @ (simulated - measured) / whole


def _in_flight(columns: Columns, edges: Column) -> Column:
    assert columns.arrival_s is not None
    inside = overlaps(columns.arrival_s, columns.arrival_s + columns.e2e_s, edges)
    mean: Column = inside.sum(axis=0) / np.diff(edges)
    return mean


def _state(result: Result, edges: Column) -> dict[str, Column]:
    """What the replicas did in each window, by the seconds of their blocks in it."""
    blocks = result.recorder.blocks()
    start, end = blocks["start"] / TICKS_PER_S, blocks["end"] / TICKS_PER_S
    origin = float(min(result.recorder.arrival)) / TICKS_PER_S
    inside = overlaps(start - origin, end - origin, edges)
    part = inside / (end - start)[:, None]
    length = np.diff(edges)
    steps = blocks["steps"] @ part
    cluster = result.experiment.cluster
    kv_blocks = result.kv.blocks * cluster.replicas * cluster.data_parallel
    return {
        "running": (blocks["sequences"] + blocks["chunks"]) @ inside / length,
        "waiting": blocks["waiting"] @ inside / length,
        "prefill_tokens_per_s": blocks["prefill_tokens"] @ part / length,
        "step_s": np.divide(inside.sum(axis=0), steps, out=np.full(len(length), np.nan), where=steps > 0),
        "kv_use": blocks["kv_blocks"] @ inside / length / kv_blocks,
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
