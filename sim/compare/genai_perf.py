"""The statistics that genai-perf (`profile_export_genai_perf.json`) and AIPerf (`profile_export_aiperf.json`) export.

One object per metric with `unit`, `avg` and percentiles. Their inter-token latency is (latency - TTFT) / (tokens - 1)
of each request: what this project calls TPOT. The files hold no requests, so the workload comes from elsewhere.
"""

from __future__ import annotations

from typing import Any

from sim.compare.measured import Measured, Statistics
from sim.compare.reading import Node
from sim.metrics.summary import QUANTILES

_FIGURES = {"ttft_s": "time_to_first_token", "tpot_s": "inter_token_latency", "e2e_s": "request_latency"}
_RATES = {"requests_per_s": "request_throughput", "output_tokens_per_s": "output_token_throughput"}


def is_genai_perf(document: dict[str, Any]) -> bool:
    """Whether this is an export of genai-perf or AIPerf."""
    return isinstance(document.get("request_latency"), dict)


def run(document: Node) -> Measured:
    """The run of the export."""
    stated: Statistics = {}
    for name, key in _FIGURES.items():
        if key in document:
            metric = document.node(key)
            scale = metric.seconds_per_unit()
            stated[name] = {"mean": metric.number("avg") * scale} | {
                quantile: metric.number(quantile) * scale for quantile in QUANTILES if quantile in metric
            }
    stated["throughput"] = {name: document.node(key).number("avg") for name, key in _RATES.items() if key in document}
    failed = int(document.node("error_request_count").number("avg")) if "error_request_count" in document else 0
    return Measured(
        source=document.where,
        tool="genai-perf",
        stated={name: values for name, values in stated.items() if values},
        dropped=(("failed in the benchmark", failed),) if failed else (),
    )
