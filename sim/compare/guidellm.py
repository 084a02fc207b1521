"""GuideLLM's `benchmarks.json`: a report of one or more benchmarks, each with its requests by outcome.

Keys as in GuideLLM's `GenerativeRequestStats` (0.4) and, for the start, `GenerativeTextResponseStats` (0.2). Its
"time per output token" counts the first token in; what this project calls TPOT it calls inter-token latency.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.compare.measured import Columns, Measured, Statistics
from sim.compare.reading import Node, non_negative, whole
from sim.metrics.summary import QUANTILES

STARTS = ("request_start_time", "start_time")
_FIGURES = {"ttft_s": ("time_to_first_token_ms", 1e-3), "e2e_s": ("request_latency", 1.0)}
_RATES = {"requests_per_s": "requests_per_second", "output_tokens_per_s": "output_tokens_per_second"}


def is_guidellm(document: dict[str, Any]) -> bool:
    """Whether this is a report of GuideLLM."""
    return isinstance(document.get("benchmarks"), list)


def runs(report: Node) -> list[Measured]:
    """Every benchmark of the report."""
    return [_run(benchmark, report.where) for benchmark in report.nodes("benchmarks")]


def _run(benchmark: Node, source: str) -> Measured:
    stated = _stated(benchmark.node("metrics")) if "metrics" in benchmark else {}
    if "requests" not in benchmark:
        return Measured(source=source, tool="GuideLLM", stated=stated)
    requests = benchmark.node("requests")
    dropped = {f"{outcome} in the benchmark": len(requests.rows(outcome)) for outcome in ("errored", "incomplete")
               if outcome in requests}  # fmt: skip
    successful = requests.nodes("successful")
    streamed = [request for request in successful if "time_to_first_token_ms" in request]
    dropped["without a time to first token"] = len(successful) - len(streamed)
    return Measured(
        source=source,
        tool="GuideLLM",
        stated=stated,
        columns=_columns(streamed).by_arrival() if streamed else None,
        dropped=tuple((reason, count) for reason, count in dropped.items() if count),
    )


def _columns(requests: list[Node]) -> Columns:
    start = next((key for key in STARTS if key in requests[0]), STARTS[0])
    return Columns(
        arrival_s=_seconds(requests, start),
        prompt_tokens=_tokens(requests, "prompt_tokens"),
        output_tokens=_tokens(requests, "output_tokens"),
        ttft_s=_seconds(requests, "time_to_first_token_ms") * 1e-3,
        e2e_s=_seconds(requests, "request_latency"),
    )


def _seconds(requests: list[Node], key: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([request.number(key) for request in requests])


def _tokens(requests: list[Node], key: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([whole(request.at(key), f"{request.where}: {key}") for request in requests], dtype=np.int64)


def _stated(metrics: Node) -> Statistics:
    """Statistics over the successful requests; inter-token latency is left out, for it weighs requests by tokens."""
    stated: Statistics = {}
    for name, (key, scale) in _FIGURES.items():
        if key in metrics:
            successful = metrics.node(key).node("successful")
            percentiles = successful.node("percentiles")
            stated[name] = {"mean": successful.number("mean") * scale} | {
                quantile: percentiles.number(quantile) * scale for quantile in QUANTILES
            }
    rates = {name: metrics.node(key).node("successful").at("mean") for name, key in _RATES.items() if key in metrics}
    if rates:
        where = f"{metrics.where}: mean"
        stated["throughput"] = {name: non_negative(rate, where) for name, rate in rates.items()}
    return stated
