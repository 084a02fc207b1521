"""Clients in a closed loop, and the columns that chain requests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.request import Requests
from sim.workload import ClosedLoop, Durations, Lengths

UNIFORM = Lengths(kind="uniform", min_tokens=1, max_tokens=9)
THINK = Durations(kind="exponential", mean_s=2.0)


def workload(**changes: object) -> ClosedLoop:
    return replace(ClosedLoop(num_requests=50, clients=8, think=THINK, prompt=UNIFORM, output=UNIFORM), **changes)


def chain(requests: Requests, request: int) -> list[int]:
    """The request and all it follows, last first."""
    assert requests.after is not None
    path = [request]
    while (earlier := int(requests.after[path[-1]])) >= 0:
        path.append(earlier)
    return path


@pytest.mark.parametrize("ramp_s", [0.0, 16.0])
def test_every_client_sends_its_share_one_after_the_other(ramp_s: float) -> None:
    requests = workload(ramp_s=ramp_s).requests(3)
    assert requests.after is not None and requests.think_s is not None
    last = set(range(50)) - set(requests.after.tolist())
    chains = sorted((chain(requests, request) for request in last), key=lambda path: path[-1])
    assert [len(path) for path in chains] == [7, 7, 6, 6, 6, 6, 6, 6]
    assert sorted(request for path in chains for request in path) == list(range(50))
    for client, path in enumerate(chains):
        starts = ramp_s * client / 8 + np.cumsum(requests.think_s[path[::-1]])
        np.testing.assert_allclose(requests.arrival_s[path[::-1]], starts, rtol=1e-12)


def test_think_times_have_their_mean() -> None:
    requests = workload(num_requests=20_000).requests(1)
    followed = requests.after >= 0
    assert requests.think_s[followed].mean() == pytest.approx(2.0, rel=5 / np.sqrt(20_000))
    assert not requests.think_s[~followed].any()


def test_without_thinking_all_may_arrive_at_0_and_still_follow_one_another() -> None:
    requests = workload(think=Durations(kind="fixed", seconds=0.0)).requests(0)
    assert not requests.arrival_s.any()
    assert requests.after.tolist() == [-1] * 8 + list(range(42))


def test_think_times_leave_lengths_alone() -> None:
    still = Durations(kind="fixed", seconds=1.0)
    base, other = workload(think=still).requests(2), workload(think=replace(still, seconds=9.0)).requests(2)
    assert np.array_equal(base.prompt_tokens, other.prompt_tokens)


@given(st.integers(0, 2**32), st.lists(st.booleans(), min_size=50, max_size=50))
def test_dropping_requests_closes_the_chains(seed: int, keep: list[bool]) -> None:
    """Who is left follows the nearest one left before it; from the start of a chain the same time is thought away."""
    requests, mask = workload(ramp_s=4.0).requests(seed), np.array(keep)
    kept, rows = requests.take(mask), np.flatnonzero(mask)
    for row, old in enumerate(rows.tolist()):
        nearest = [earlier for earlier in chain(requests, old)[1:] if mask[earlier]]
        assert kept.after[row] == (int(np.searchsorted(rows, nearest[0])) if nearest else -1)
        if nearest:
            gap_s = requests.arrival_s[old] - requests.arrival_s[nearest[0]]
            assert kept.think_s[row] == pytest.approx(gap_s, abs=1e-9)
    assert kept.arrival_s.tolist() == requests.arrival_s[mask].tolist()


def test_taking_all_changes_nothing_and_every_column_follows_the_mask() -> None:
    n = 50
    full = replace(
        workload().requests(0),
        cancel_s=np.arange(1.0, n + 1),
        priority=np.arange(n),
        source_line=np.arange(n),
        block_ids=tuple(np.array([i]) for i in range(n)),
        generated_block_ids=tuple(np.array([n + i]) for i in range(n)),
        block_tokens=1,
    )
    same = full.take(np.ones(n, bool))
    assert np.array_equal(same.after, full.after) and np.array_equal(same.think_s, full.think_s)
    odd = full.take(np.arange(n) % 2 == 1)
    assert odd.priority.tolist() == odd.source_line.tolist() == list(range(1, n, 2))
    assert odd.cancel_s.tolist() == list(range(2, n + 1, 2))
    assert [int(ids[0]) for ids in odd.block_ids] == list(range(1, n, 2))
    assert [int(ids[0]) for ids in odd.generated_block_ids] == list(range(n + 1, 2 * n, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"after": np.array([-1, 1, 0])}, r"after must be the index of an earlier request, or -1, got 1 for request 1"),
        ({"after": np.array([-1, 2, -1])}, r"after must be the index of an earlier request.*got 2 for request 1"),
        ({"after": np.array([-2, 0, 0])}, r"after must be .*got -2 for request 0"),
        ({"after": np.array([-1, 0])}, r"after must have 3 rows like arrival_s, got 2"),
        ({"think_s": np.array([0, -1.0, 0])}, r"think_s must be finite and >= 0, got -1\.0 for request 1"),
        ({"think_s": np.array([0, np.inf, 0])}, r"think_s must be finite and >= 0, got inf"),
        ({"think_s": np.array([1.0, 0, 0])}, r"think_s must be 0 where after is -1, got 1\.0 for request 0"),
        ({"think_s": None}, r"after and think_s must be given together"),
        ({"concurrency": 2}, r"concurrency must be 0 where requests follow others, got 2"),
        ({"cancel_s": np.array([1, 0.0, 2])}, r"cancel_s must be > 0 \(inf: never\), got 0\.0 for request 1"),
        ({"cancel_s": np.array([1, np.nan, 2])}, r"cancel_s must be > 0 .*got nan"),
        ({"generated_block_ids": (np.zeros(0, np.int64),) * 3}, r"generated_block_ids has no effect without block_ids"),
    ],
)
def test_columns_out_of_bounds_are_refused(change: dict[str, object], message: str) -> None:
    requests = Requests(
        arrival_s=np.zeros(3),
        prompt_tokens=np.ones(3, np.int64),
        output_tokens=np.ones(3, np.int64),
        group=np.zeros(3, np.int32),
        after=np.array([-1, 0, 0]),
        think_s=np.array([0, 1.0, 2.0]),
    )
    with pytest.raises(ValueError, match=message):
        replace(requests, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clients": 0}, r"workload\.clients must lie in \[1, 50\], got 0"),
        ({"clients": 51}, r"workload\.clients must lie in \[1, 50\], got 51"),
        ({"num_requests": 0}, r"workload\.num_requests must be >= 1, got 0"),
        ({"ramp_s": -1.0}, r"workload\.ramp_s must be >= 0, got -1"),
        ({"ramp_s": 1.0, "clients": 1}, r"workload\.ramp_s has no effect with one client"),
        ({"think": Durations(kind="fixed")}, r"workload\.think\.seconds must be set with kind=fixed"),
        ({"think": replace(THINK, sigma=1.0)}, r"workload\.think\.sigma has no effect with kind=exponential"),
        ({"think": replace(THINK, mean_s=0.0)}, r"workload\.think\.mean_s must be > 0, got 0"),
        ({"think": replace(THINK, kind="gamma")}, r"think\.kind must be one of fixed, exponential, lognormal"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workload(**change)
