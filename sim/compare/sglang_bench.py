"""A line of the JSONL that SGLang's `python -m sglang.bench_serving --output-file` appends, with or without details.

Like vLLM's but in the names of end-to-end latency and of the total throughput; the lists of `--output-details` hold no
arrivals. An infinite rate stands there as the number, not as a word.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim.compare import vllm_bench
from sim.compare.measured import Measured
from sim.compare.reading import Node

_NAMES = {"e2e_latency": "e2el"}
_TOTAL = ("total_throughput", "total_token_throughput")


def is_sglang_bench(document: dict[str, Any]) -> bool:
    """Whether SGLang wrote this."""
    return "mean_e2e_latency_ms" in document and "completed" in document


def run(document: Node) -> Measured:
    """The run of one line.

    Raises:
        ValueError: as `sim.compare.vllm_bench.run`.
    """
    values = {_renamed(name): value for name, value in document.values.items()}
    return replace(vllm_bench.run(Node(values, document.where)), tool="SGLang bench_serving")


def _renamed(name: str) -> str:
    for sglang, vllm in _NAMES.items():
        name = name.replace(sglang, vllm)
    return _TOTAL[1] if name == _TOTAL[0] else name
