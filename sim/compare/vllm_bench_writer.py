"""A simulated run as the JSON of `vllm bench serve --save-result --save-detailed`.

Keys as in `vllm/benchmarks/serve.py`; `sim.compare.vllm_bench` reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.compare.emissions import emission_gaps
from sim.files import write_whole
from sim.metrics.summary import QUANTILES, Times
from sim.result import Result

Column = NDArray[np.float64]


def write_vllm_bench(result: Result, path: Path) -> None:
    """Write `to_vllm_bench(result)`, whole or not at all."""
    text = json.dumps(to_vllm_bench(result), allow_nan=False) + "\n"
    write_whole(path, lambda whole: whole.write_text(text))


def to_vllm_bench(result: Result) -> dict[str, Any]:
    """The run as `vllm bench serve` would have saved it, with `--percentile-metrics ttft,tpot,itl,e2el`.

    `predicted_by` stands where `--metadata` puts its keys and says that nothing was measured; times are those of the
    engine, without HTTP. There are no texts, and no date (same seed, same bytes). A request that did not finish, such
    as one whose client gave up, stands there as a failed one.
    """
    requests, times = result.requests, Times.of(result.recorder)
    done = np.isfinite(times.finish_s)
    gaps, guessed = emission_gaps(result)
    figures = {
        "ttft": times.ttft_s[done],
        "tpot": times.tpot_s(requests.output_tokens),
        "itl": np.concatenate(gaps),
        "e2el": times.e2e_s,
    }
    statistics: dict[str, float] = {}
    for name, values in figures.items():
        statistics |= _statistics(name, values)
    document = _setup(result, guessed) | _totals(result, done) | _lists(result, times, done, gaps)
    return document | _peaks(times, gaps, done) | {"rtfx": 0.0} | _speculation(result) | statistics


def _setup(result: Result, guessed: int) -> dict[str, Any]:
    requests = result.requests
    note = f"; gaps of {guessed} preempted requests are spread evenly" if guessed else ""
    return {
        "date": None,
        "endpoint_type": "moesd-sim",
        "backend": "moesd-sim",
        "label": result.label,
        "model_id": result.experiment.model.name,
        "tokenizer_id": None,
        "num_prompts": len(requests),
        "predicted_by": f"moesd-sim, times of the engine{note}",
        "request_rate": "inf" if requests.concurrency else _rate(requests.arrival_s),
        "burstiness": None,
        "max_concurrency": requests.concurrency or None,
    }


def _totals(result: Result, done: NDArray[np.bool_]) -> dict[str, Any]:
    requests, summary = result.requests, result.summary()
    return {
        "duration": summary["makespan_s"],
        "completed": int(done.sum()),
        "failed": int((~done).sum()),
        "total_input_tokens": int(requests.prompt_tokens[done].sum()),
        "total_output_tokens": int(requests.output_tokens[done].sum()),
        "request_throughput": summary["throughput"]["requests_per_s"],
        "request_goodput": None,
        "output_throughput": summary["throughput"]["output_tokens_per_s"],
        "total_token_throughput": summary["throughput"]["total_tokens_per_s"],
    }


def _lists(result: Result, times: Times, done: NDArray[np.bool_], gaps: list[Column]) -> dict[str, list[Any]]:
    """An entry per request; of one that did not finish, what vllm leaves of a failed one."""
    n = len(done)
    return {
        "input_lens": result.requests.prompt_tokens.tolist(),
        "output_lens": np.where(done, result.requests.output_tokens, 0).tolist(),
        "ttfts": np.where(done, times.ttft_s, 0.0).tolist(),
        "itls": [column.tolist() for column in gaps],
        "latencies": np.where(done, times.e2e_s, 0.0).tolist(),
        "start_times": times.arrival_s.tolist(),
        "queue_times": [0.0] * n,
        "generated_texts": [""] * n,
        "errors": ["" if finished else "did not finish" for finished in done],
    }


def _rate(arrival_s: Column) -> float | str:
    """Mean arrivals per second; vLLM's word for all at once."""
    span_s = float(arrival_s[-1] - arrival_s[0])
    return (len(arrival_s) - 1) / span_s if span_s > 0 else "inf"


def _statistics(name: str, seconds: Column) -> dict[str, float]:
    """Mean, median, deviation and percentiles in milliseconds; 0 where there are no values, as vLLM has it."""
    values = seconds[np.isfinite(seconds)] * 1e3
    values = values if values.size else np.zeros(1)
    named = {"mean": values.mean(), "median": np.median(values), "std": values.std()}
    named |= {quantile: np.quantile(values, q) for quantile, q in QUANTILES.items()}
    return {f"{statistic}_{name}_ms": float(value) for statistic, value in named.items()}


def _peaks(times: Times, gaps: list[Column], done: NDArray[np.bool_]) -> dict[str, float]:
    """Most chunks in a second, and most requests at once (one that ends makes room for one that comes)."""
    arrival_s, finish_s = times.arrival_s[done], times.finish_s[done]
    if not arrival_s.size:
        return {"max_output_tokens_per_s": 0.0, "max_concurrent_requests": 0}
    begin = arrival_s.min()
    streams = [(times.first_token_s[row], gaps[row]) for row in np.flatnonzero(done)]
    chunks = np.concatenate([first + np.cumsum([0.0, *gap]) for first, gap in streams])
    instants = np.concatenate((finish_s, arrival_s))
    change = np.repeat((-1, 1), len(arrival_s))
    present = np.cumsum(change[np.lexsort((change, instants))])
    return {
        "max_output_tokens_per_s": float(np.bincount((chunks - begin).astype(np.int64)).max()),
        "max_concurrent_requests": int(present.max()),
    }


def _speculation(result: Result) -> dict[str, float]:
    """vLLM's counters of speculative decoding; its acceptance rate is accepted / drafted, in percent."""
    rounds, accepted, drafted = (sum(getattr(result.recorder, name)) for name in ("rounds", "accepted", "drafted"))
    if not drafted:
        return {}
    return {
        "spec_decode_acceptance_rate": 100.0 * accepted / drafted,
        "spec_decode_acceptance_length": 1 + accepted / rounds,
        "spec_decode_num_drafts": rounds,
        "spec_decode_draft_tokens": drafted,
        "spec_decode_accepted_tokens": accepted,
    }
