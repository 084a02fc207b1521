"""Every trace format, plain and gzip, on small files of ours that hold the formats' oddities."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sim.workload import AzureTrace, BurstGptTrace, MooncakeTrace, ServeGen, SimpleTrace

Packed = Callable[[str], str]


@pytest.fixture(params=["plain", "gzip", "gzip named .csv"])
def file(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Packed:
    """Gives a file of tests/data as it is, or compressed under a name that says so or does not."""

    def packed(name: str) -> str:
        source = root / "tests" / "data" / name
        if request.param == "plain":
            return str(source)
        target = tmp_path / (f"{name}.gz" if request.param == "gzip" else "trace.csv")
        target.write_bytes(gzip.compress(source.read_bytes()))
        return str(target)

    return packed


def test_azure_times_are_exact_over_midnight_and_equal_times_keep_file_order(file: Packed) -> None:
    requests = AzureTrace(path=file("azure.csv")).requests(0)
    assert list(requests.arrival_s) == [0.0, 2e-7, 0.5000001, 0.5000001, 5.0]
    assert list(requests.prompt_tokens) == [300, 120, 2048, 7, 900]
    assert list(requests.output_tokens) == [20, 8, 1, 400, 64]
    assert requests.source_line is not None
    assert list(requests.source_line) == [2, 3, 4, 5, 7]
    assert requests.dropped == (("failed request (0 tokens)", 1),)
    assert requests.block_ids is None


def test_mooncake_keeps_the_prefix_blocks(file: Packed) -> None:
    requests = MooncakeTrace(path=file("mooncake.jsonl")).requests(0)
    assert list(requests.arrival_s) == [0, 0, 1.5, 4.001]
    assert list(requests.prompt_tokens) == [1100, 1024, 90, 1537]
    assert requests.block_tokens == 512
    assert requests.block_ids is not None
    assert [list(ids) for ids in requests.block_ids] == [[0, 1, 2], [0, 1], [7], [0, 1, 10, 11]]
    assert all(ids.dtype == np.int64 for ids in requests.block_ids)
    assert requests.dropped == (("failed request (0 tokens)", 1),)


def test_burstgpt_drops_failures_and_groups_by_log_type(file: Packed) -> None:
    requests = BurstGptTrace(path=file("burstgpt.csv")).requests(0)
    assert list(requests.arrival_s) == [0, 2.5, 51]
    assert list(requests.prompt_tokens) == [40, 700, 81]
    assert requests.groups == ("Conversation log", "API log")
    assert list(requests.group) == [0, 1, 0]
    assert requests.dropped == (("failed request (0 tokens)", 2),)


@pytest.mark.parametrize("name", ["simple.csv", "simple.jsonl"])
def test_simple_csv_and_json_lines_say_the_same(file: Packed, name: str) -> None:
    requests = SimpleTrace(path=file(name)).requests(0)
    assert list(requests.arrival_s) == [0, 0.25, 0.25, 2]
    assert list(requests.prompt_tokens) == [100, 200, 300, 400]
    assert list(requests.output_tokens) == [10, 20, 30, 40]
    assert [requests.groups[code] for code in requests.group] == ["chat", "code", "chat", "all"]
    assert requests.source_line is not None
    assert requests.source_line[-1] - requests.source_line[0] == 4
    assert requests.dropped == ()


def test_servegen_sends_what_the_rates_say_with_the_lengths_of_the_window(file: Packed) -> None:
    requests = ServeGen(path=file("servegen.jsonl")).requests(0)
    assert requests.groups == ("client-3", "client-8")
    of_3 = requests.group == 0
    early = requests.arrival_s < 600
    late = requests.arrival_s >= 21600
    assert [np.count_nonzero(part) for part in (of_3 & early, of_3 & late, ~of_3)] == [300, 60, 150]
    assert set(requests.prompt_tokens[of_3 & early]) == {10, 30}
    assert set(requests.output_tokens[of_3 & early]) == {5}
    # The second window of client 3 has no lengths: 0 s and 43,200 s are equally near, the earlier one is taken.
    assert set(requests.prompt_tokens[of_3 & late]) == {10, 30}
    assert set(requests.prompt_tokens[~of_3]) == {64}


def test_a_file_without_a_last_newline_with_bom_and_windows_line_ends_reads_the_same(tmp_path: Path) -> None:
    odd = tmp_path / "odd.csv"
    odd.write_bytes(b"\xef\xbb\xbfarrival_s, prompt_tokens, output_tokens\r\n0, 5, 6\r\n1.5, 7, 8")
    requests = SimpleTrace(path=str(odd)).requests(0)
    assert list(requests.arrival_s) == [0, 1.5]
    assert list(requests.prompt_tokens) == [5, 7]
    assert requests.groups == ("all",)


def test_azure_2024_time_stamps_are_read(tmp_path: Path) -> None:
    path = tmp_path / "azure_2024.csv"
    stamps = ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:01+00:00")
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"{stamp},5,6\n" for stamp in stamps))
    assert list(AzureTrace(path=str(path)).requests(0).arrival_s) == [0, 0.99007]
