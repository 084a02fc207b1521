"""The JSON of `vllm bench serve --save-result`, with or without `--save-detailed`.

Keys as in `vllm/benchmarks/serve.py`. Times are seconds in the lists, milliseconds in the statistics. The lists hold
every request, also failed ones (no output tokens, mostly an error text); they are missing without `--save-detailed`.
An entry of `itls` is the gap between two chunks of a stream: one per round, whatever it brought.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.compare.measured import Columns, Measured, Sent, Statistics
from sim.compare.reading import Node
from sim.metrics.summary import QUANTILES

FIGURES = {"ttft_s": "ttft", "tpot_s": "tpot", "itl_s": "itl", "e2e_s": "e2el"}
RATES = {
    "requests_per_s": "request_throughput",
    "output_tokens_per_s": "output_throughput",
    "total_tokens_per_s": "total_token_throughput",
}

Column = NDArray[np.float64]


def is_vllm_bench(document: dict[str, Any]) -> bool:
    """Whether `vllm bench serve` wrote this."""
    return "request_throughput" in document and "completed" in document


def run(document: Node) -> Measured:
    """The run of one result; failed requests are left out and counted.

    Raises:
        ValueError: a key is missing, a list has another length, a time is negative; named with file and key.
    """
    failed = int(document.number("failed")) if "failed" in document else 0
    columns = None
    if "ttfts" in document:
        columns, failed = _columns(document)
    limit = int(document.number("max_concurrency")) if "max_concurrency" in document else 0
    predicted_by = str(document.values.get("predicted_by", ""))
    return Measured(
        source=document.where,
        tool="vllm bench serve",
        side="engine" if predicted_by else "client",
        model=str(document.values.get("model_id", "")),
        stated=_stated(document),
        columns=columns,
        concurrency=limit if _unpaced(document) else 0,
        sent=sent(document),
        dropped=(("failed in the benchmark", failed),) if failed else (),
        predicted_by=predicted_by,
    )


def _columns(document: Node) -> tuple[Columns | None, int]:
    """The requests that succeeded, and how many did not."""
    n = len(document.rows("ttfts"))
    output = document.counts("output_lens", n)
    errors = document.rows("errors", n) if "errors" in document else [""] * n
    kept = np.flatnonzero((output > 0) & np.array([not error for error in errors], dtype=np.bool_))
    gaps = [Node({"itls": row}, f"{document.where}: request {i}") for i, row in enumerate(document.rows("itls", n))]
    itl_s = tuple(gap.numbers("itls", len(gap.rows("itls"))) for gap in gaps)
    ttft_s = document.numbers("ttfts", n)
    if "latencies" in document:
        e2e_s = document.numbers("latencies", n)
    else:
        e2e_s = ttft_s + np.array([column.sum() for column in itl_s])
    columns = Columns(
        arrival_s=document.numbers("start_times", n) if "start_times" in document else _at_once(document, n),
        prompt_tokens=document.counts("input_lens", n),
        output_tokens=output,
        ttft_s=ttft_s,
        e2e_s=e2e_s,
        itl_s=itl_s,
    )
    return (columns.take(kept).by_arrival() if kept.size else None), n - len(kept)


def sent(document: Node) -> Sent | None:
    """The stream as its totals and its rate describe it."""
    names = ("completed", "total_input_tokens", "total_output_tokens", "request_rate")
    if not all(name in document for name in names) or not document.number("completed"):
        return None
    n, prompt, output = (document.number(name) for name in names[:3])
    return Sent(
        requests=int(n),
        prompt_tokens=max(1, round(prompt / n)),
        output_tokens=max(1, round(output / n)),
        rate_per_s=math.inf if _unpaced(document) else document.number("request_rate"),
        burstiness=document.number("burstiness") if "burstiness" in document else 1.0,
    )


def _unpaced(document: Node) -> bool:
    """Whether requests were sent as soon as the limit of concurrency, if any, let them."""
    return str(document.values.get("request_rate")) == "inf"


def _at_once(document: Node, n: int) -> Column | None:
    """Arrivals of a file without `start_times` (vLLM before 2026): known where everything was sent at once."""
    return np.zeros(n) if _unpaced(document) and "max_concurrency" not in document else None


def _stated(document: Node) -> Statistics:
    stated: Statistics = {"throughput": {name: document.number(key) for name, key in RATES.items() if key in document}}
    for name, vllm in FIGURES.items():
        words = {"mean": "mean", "p50": "median"} | {quantile: quantile for quantile in QUANTILES if quantile != "p50"}
        keys = {statistic: f"{word}_{vllm}_ms" for statistic, word in words.items()}
        stated[name] = {statistic: document.number(key) * 1e-3 for statistic, key in keys.items() if key in document}
    return {name: values for name, values in stated.items() if values}
