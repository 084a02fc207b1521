"""The published traces themselves, where they are at hand: counts and statistics known from their publishers' files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sim.workload import AzureTrace, BurstGptTrace, MooncakeTrace, ServeGen

# file -> format, requests, last arrival s, CV of the gaps, prompt mean, p50 and max, output mean and max, failed rows
TRACES = {
    "AzureLLMInferenceTrace_conv_2023.csv.gz": (AzureTrace, 19_366, 3502, 1.09, 1155, 1020, 14_050, 211, 1000, 0),
    "AzureLLMInferenceTrace_code_2023.csv.gz": (AzureTrace, 8_819, 3436, 13.2, 2048, 1469, 7_437, 28, 1899, 0),
    "mooncake_conversation_trace.jsonl.gz": (MooncakeTrace, 12_031, 3537, 3.0, 12_035, 6909, 126_195, 343, 2000, 0),
    "mooncake_synthetic_trace.jsonl.gz": (MooncakeTrace, 3_993, 1022, 1.0, 15_325, 11_587, 191_378, 149, 893, 0),
    "burstgpt_first379.csv.gz": (BurstGptTrace, 364, 37_003, 4.4, 558, 381.5, 2126, 284, 2019, 15),
}


@pytest.fixture(scope="session")
def traces(shared_data: Path) -> Path:
    folder = shared_data / "traces"
    if not folder.is_dir():
        pytest.skip("the published workload traces are not beside the checkout (../shared/data/traces)")
    return folder


@pytest.mark.parametrize("name", TRACES)
def test_a_published_trace_has_its_published_statistics(traces: Path, name: str) -> None:
    kind, n, span_s, cv, prompt, prompt_p50, prompt_max, output, output_max, failed = TRACES[name]
    requests = kind(path=str(traces / name)).requests(0)
    gaps = np.diff(requests.arrival_s)
    assert len(requests) == n
    assert requests.arrival_s[-1] == pytest.approx(span_s, abs=0.5)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)
    assert requests.prompt_tokens.mean() == pytest.approx(prompt, abs=0.6)
    assert np.median(requests.prompt_tokens) == prompt_p50
    assert requests.prompt_tokens.max() == prompt_max
    assert requests.output_tokens.mean() == pytest.approx(output, abs=0.6)
    assert requests.output_tokens.max() == output_max
    assert sum(count for _, count in requests.dropped) == failed


def test_a_row_of_the_azure_conversations_costs_thirty_calls(traces: Path) -> None:
    """What reading costs, in a unit no machine changes; the whole file takes 0.15 s on an idle core."""
    trace = AzureTrace(path=str(traces / "AzureLLMInferenceTrace_conv_2023.csv.gz"))
    trace.requests(0)  # imports
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        requests = trace.requests(0)
    finally:
        sys.setprofile(before)
    assert calls / len(requests) < 33


def test_mooncake_prefix_blocks_repeat_as_published(traces: Path) -> None:
    requests = MooncakeTrace(path=str(traces / "mooncake_conversation_trace.jsonl.gz")).requests(0)
    assert requests.block_ids is not None
    assert all(len(ids) == -(-n // 512) for ids, n in zip(requests.block_ids, requests.prompt_tokens, strict=True))
    ids = np.concatenate(requests.block_ids)
    assert len(np.unique(ids)) == 182_790
    assert 1 - 182_790 / len(ids) == pytest.approx(0.366, abs=5e-4)


def test_servegen_day_has_the_published_load_and_lengths(traces: Path) -> None:
    requests = ServeGen(path=str(traces / "servegen_reason_deepseek-r1.jsonl.gz")).requests(0)
    assert len(requests) == pytest.approx(1.38e6, rel=0.005)
    assert requests.prompt_tokens.mean() == pytest.approx(1268, rel=0.01)
    assert requests.output_tokens.mean() == pytest.approx(1527, rel=0.01)
    assert len(requests.groups) == 73
