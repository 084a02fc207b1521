"""Requests that do not fit the model's context, and the columns' own bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.request import Requests
from sim.workload import MooncakeTrace, clip_to_context


@pytest.fixture
def requests(root: Path) -> Requests:
    """Total tokens 1112, 1054, 95, 1614."""
    return MooncakeTrace(path=str(root / "tests" / "data" / "mooncake.jsonl")).requests(0)


def test_a_context_that_is_just_enough_changes_nothing(requests: Requests) -> None:
    assert clip_to_context(requests, 1614, drop=False) is requests
    assert clip_to_context(requests, 1614, drop=True) is requests


def test_a_request_over_the_context_is_refused_with_file_and_line(requests: Requests) -> None:
    with pytest.raises(
        ValueError, match=r"mooncake\.jsonl:5: request 3 has 1537 prompt \+ 77 output .* context of 1613"
    ):
        clip_to_context(requests, 1613, drop=False)
    drawn = replace(requests, source="", source_line=None)
    with pytest.raises(ValueError, match=r"^request 0 has 1100 prompt .* 1111 \(as 2 of 4 do\)"):
        clip_to_context(drawn, 1111, drop=False)


def test_dropped_requests_are_counted_beside_the_reader_s(requests: Requests) -> None:
    kept = clip_to_context(requests, 1100, drop=True)
    assert list(kept.prompt_tokens) == [1024, 90]
    assert list(kept.arrival_s) == [0, 1.5]
    assert kept.block_ids is not None
    assert [list(ids) for ids in kept.block_ids] == [[0, 1], [7]]
    assert dict(kept.dropped) == {"failed request (0 tokens)": 1, "longer than the model's context": 2}
    again = clip_to_context(kept, 95, drop=True)
    assert dict(again.dropped)["longer than the model's context"] == 3


def test_dropping_every_request_is_refused(requests: Requests) -> None:
    with pytest.raises(ValueError, match=r"context of 50 .*shorter requests"):
        clip_to_context(requests, 50, drop=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"arrival_s": np.array([0.0, 2.0, 1.0, 3.0])},
            r"arrival_s must be >= 0 and non-decreasing, got 1\.0 for request 2",
        ),
        ({"arrival_s": np.array([-1.0, 2.0, 2.0, 3.0])}, r"arrival_s must be >= 0 .*request 0"),
        ({"arrival_s": np.array([0.0, np.nan, 2.0, 3.0])}, r"arrival_s must be finite, got nan for request 1"),
        ({"prompt_tokens": np.array([1, 1, 0, 1])}, r"prompt_tokens must be >= 1, got 0 for request 2"),
        ({"output_tokens": np.array([1, 1, 1])}, r"output_tokens must have 4 rows like arrival_s, got 3"),
        ({"group": np.array([0, 0, 1, 0])}, r"group must index .* got 1 for request 2"),
        ({"block_tokens": 0}, r"block_tokens must be > 0 with block_ids"),
        ({"block_ids": None}, r"block_tokens must be > 0 with block_ids and 0 without, got 512"),
        ({"concurrency": -1}, r"concurrency must be >= 0, got -1"),
        ({"concurrency": 2}, r"arrival_s must be 0 in a closed loop .*request 2"),
    ],
)
def test_columns_out_of_bounds_are_refused(requests: Requests, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(requests, **change)
