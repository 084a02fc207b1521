"""Reads a measured run, whichever tool wrote it."""

from __future__ import annotations

from sim.compare import genai_perf, guidellm, sglang_bench, vllm_bench
from sim.compare.measured import Measured
from sim.compare.reading import Node, read_documents

TOOLS = "vllm bench serve, SGLang bench_serving, GuideLLM, genai-perf or AIPerf"


def read_measured(path: str) -> Measured:
    """The run in the file `path`; of several, `path#2` is the second.

    Raises:
        ValueError: not a file of a known tool, several runs and none chosen, or a value that cannot be; the message
            names file and key.
    """
    name, _, number = path.partition("#")
    runs = [run for document in read_documents(name) for run in _runs(Node(document, name))]
    if not runs:
        raise ValueError(f"{name}: holds no run")
    if not number and len(runs) > 1:
        raise ValueError(f"{name}: holds {len(runs)} runs; choose one as {name}#1 to {name}#{len(runs)}")
    chosen = number or "1"
    if not chosen.isdecimal() or not 1 <= int(chosen) <= len(runs):
        raise ValueError(f"{name}: the run after # must lie in 1 to {len(runs)}, got {chosen!r}")
    run = runs[int(chosen) - 1]
    if run.columns is not None:
        run.columns.check(name)
    if not run.statistics():
        raise ValueError(f"{name}: no request succeeded and no statistic is stated")
    return run


def _runs(document: Node) -> list[Measured]:
    if guidellm.is_guidellm(document.values):
        return guidellm.runs(document)
    if sglang_bench.is_sglang_bench(document.values):
        return [sglang_bench.run(document)]
    if vllm_bench.is_vllm_bench(document.values):
        return [vllm_bench.run(document)]
    if genai_perf.is_genai_perf(document.values):
        return [genai_perf.run(document)]
    raise ValueError(f"{document.where}: must come from {TOOLS}, got the keys {', '.join(document.values) or 'none'}")
