"""What to measure of a run beyond its headline: a window, goodput, confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.metrics.confidence import batch_means
from sim.metrics.goodput import Slo, goodput, slo_met, slo_of_group
from sim.metrics.record import Recorder
from sim.metrics.summary import Times, distribution
from sim.metrics.window import Interval, Window
from sim.request import Requests


@dataclass(kw_only=True, slots=True)
class Measure:
    """Settings of the measurement; each part is left out of the summary unless asked for.

    Attributes:
        window: what of the run counts, for everything here; the headline figures are of the whole run.
        slo: group -> bounds; `all` stands for every group without an entry.
        confidence: level of the confidence intervals, in (0, 1); null for none.
    """

    window: Window = field(default_factory=Window)
    slo: dict[str, Slo] = field(default_factory=dict)
    confidence: float | None = None

    def __post_init__(self) -> None:
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ValueError(f"measure.confidence must lie in (0, 1), got {self.confidence}")


def measured(measure: Measure, requests: Requests, recorder: Recorder) -> dict[str, Any]:
    """The keys `window`, `goodput` and `confidence` of a run's summary; empty each where not asked for.

    Raises:
        ValueError: the window leaves nothing, or an SLO names an unknown group.
    """
    found: dict[str, Any] = {"window": {}, "goodput": {}, "confidence": {}}
    if measure == Measure():
        return found
    times = Times.of(recorder)
    interval = measure.window.interval(times.arrival_s, times.finish_s)
    latencies = {"ttft_s": times.ttft_s, "tpot_s": times.tpot_s(requests.output_tokens), "e2e_s": times.e2e_s}
    series = {name: column[interval.counted] for name, column in latencies.items()}
    if not measure.window.is_whole:
        found["window"] = _window(interval, requests, times)
        found["window"] |= {name: distribution(column) for name, column in series.items()}
    if measure.slo:
        met, bound = slo_met(slo_of_group(measure.slo, requests.groups), requests.group, **latencies)
        counted = interval.counted & bound
        found["goodput"] = goodput(met, counted, requests.group, requests.groups, interval.seconds)
        series["attainment"] = np.where(bound, met, np.nan)[interval.counted]
    if measure.confidence is not None:
        order = np.argsort(times.arrival_s[interval.counted], kind="stable")
        intervals = {name: batch_means(column[order], measure.confidence) for name, column in series.items()}
        found["confidence"] = {"level": measure.confidence} | intervals
    return found


def _window(interval: Interval, requests: Requests, times: Times) -> dict[str, Any]:
    """The window, and its throughput: what finished in it, ends included, whenever it arrived."""
    finished = (times.finish_s >= interval.from_s) & (times.finish_s <= interval.until_s)
    return {
        "from_s": interval.from_s,
        "until_s": interval.until_s,
        "requests": int(np.count_nonzero(interval.counted)),
        "throughput": {
            "requests_per_s": int(np.count_nonzero(finished)) / interval.seconds,
            "output_tokens_per_s": int(requests.output_tokens[finished].sum()) / interval.seconds,
        },
    }
