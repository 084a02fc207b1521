"""Sessions: every prompt holds the history, block ids say so, and shared system prompts are shared."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.request import Requests
from sim.workload import Durations, Lengths, Sessions, SystemPrompts

SYSTEM = SystemPrompts(number=3, tokens=Lengths(kind="uniform", min_tokens=1, max_tokens=90))
BASE = Sessions(
    num_sessions=40,
    arrival="poisson",
    sessions_per_s=2.0,
    turns=Lengths(kind="uniform", min_tokens=1, max_tokens=5),
    think=Durations(kind="exponential", mean_s=3.0),
    prompt=Lengths(kind="uniform", min_tokens=1, max_tokens=60),
    output=Lengths(kind="uniform", min_tokens=1, max_tokens=50),
    system=SYSTEM,
)
SINGLE = replace(BASE, num_sessions=20_000, turns=Lengths(kind="fixed", tokens=1), think=None)


def sessions(requests: Requests) -> list[list[int]]:
    """Rows of every session, first turn first."""
    found: list[list[int]] = []
    place: dict[int, list[int]] = {}
    for request in range(len(requests)):
        earlier = -1 if requests.after is None else int(requests.after[request])
        turns = place[earlier] if earlier >= 0 else []
        if earlier < 0:
            found.append(turns)
        turns.append(request)
        place[request] = turns
    return found


@given(st.integers(0, 2**32), st.integers(1, 40), st.booleans())
def test_the_ids_of_a_turn_begin_with_those_of_the_turn_before(seed: int, block_tokens: int, shared: bool) -> None:
    requests = replace(BASE, block_tokens=block_tokens, system=SYSTEM if shared else None).requests(seed)
    assert requests.block_ids is not None and requests.generated_block_ids is not None
    for turns in sessions(requests):
        for before, turn in pairwise(turns):
            history = int(requests.prompt_tokens[before] + requests.output_tokens[before])
            assert history < requests.prompt_tokens[turn] <= history + 60
            known = np.concatenate((requests.block_ids[before], requests.generated_block_ids[before]))
            assert len(known) == (history - 1) // block_tokens
            assert np.array_equal(requests.block_ids[turn][: len(known)], known)
    for ids, tokens in zip(requests.block_ids, requests.prompt_tokens.tolist(), strict=True):
        assert len(ids) == len(set(ids.tolist())) == tokens // block_tokens


def test_two_sessions_share_full_blocks_of_a_common_system_prompt_and_nothing_else() -> None:
    requests, lengths, chosen = BASE.requests(7), SYSTEM.lengths(7), SYSTEM.choose(40, 7)
    assert len(set(chosen.tolist())) == 3
    turns = sessions(requests)
    last = [rows[-1] for rows in turns]
    everything = [{*requests.block_ids[row].tolist(), *requests.generated_block_ids[row].tolist()} for row in last]
    for one in range(40):
        for other in range(one):
            common = everything[one] & everything[other]
            shared = int(lengths[chosen[one]]) // 16 if chosen[one] == chosen[other] else 0
            assert len(common) == shared
            assert common == set(requests.block_ids[turns[one][0]][:shared].tolist())


def test_ids_are_dense() -> None:
    requests = BASE.requests(1)
    named = np.concatenate((*requests.block_ids, *requests.generated_block_ids))
    assert len(np.unique(named)) == named.max() + 1


def test_sessions_have_their_number_turns_rate_and_think_times() -> None:
    requests = replace(BASE, num_sessions=20_000, system=None).requests(2)
    starts_s = requests.arrival_s[requests.after < 0]
    assert len(starts_s) == 20_000
    assert len(starts_s) / starts_s[-1] == pytest.approx(2.0, rel=5 / np.sqrt(20_000))
    turns = Counter(len(rows) for rows in sessions(requests))
    assert [turns[k] / 20_000 for k in range(1, 6)] == pytest.approx([0.2] * 5, abs=5 * np.sqrt(0.16 / 20_000))
    assert requests.think_s[requests.after >= 0].mean() == pytest.approx(3.0, rel=5 / np.sqrt(40_000))


def test_more_sessions_and_longer_ones_leave_the_others_as_they_were() -> None:
    def by_start(requests: Requests) -> dict[float, list[tuple[int, int]]]:
        rows = zip(requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), strict=True)
        sizes = list(rows)
        return {requests.arrival_s[rows[0]]: [sizes[row] for row in rows] for rows in sessions(requests)}

    base = by_start(BASE.requests(4))
    more = by_start(replace(BASE, num_sessions=60).requests(4))
    longer = by_start(replace(BASE, turns=Lengths(kind="fixed", tokens=9)).requests(4))
    for start_s, turns in base.items():
        assert more[start_s] == turns
        assert longer[start_s][: len(turns)] == turns


def test_single_turns_have_no_chains_and_share_system_prompts_by_zipf_s_law() -> None:
    skewed = replace(SINGLE, system=SystemPrompts(number=4, tokens=Lengths(kind="fixed", tokens=64), skew=1.0))
    requests = skewed.requests(0)
    assert requests.after is None and requests.think_s is None and requests.generated_block_ids is None
    first = np.array([ids[0] for ids in requests.block_ids])
    share = np.unique(first, return_counts=True)[1] / 20_000
    law = np.array([1, 1 / 2, 1 / 3, 1 / 4])
    assert share == pytest.approx(law / law.sum(), abs=5 * np.sqrt(0.25 / 20_000))
    assert (requests.prompt_tokens > 64).all()


def test_a_dropped_turn_leaves_a_session_that_goes_on() -> None:
    requests = BASE.requests(5)
    keep = np.ones(len(requests), bool)
    rows = next(rows for rows in sessions(requests) if len(rows) >= 3)
    keep[rows[1]] = False
    left = sessions(requests.take(keep))
    assert sorted(map(len, left)) == sorted(len(r) - (r == rows) for r in sessions(requests))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_sessions": 0}, r"workload\.num_sessions must be >= 1, got 0"),
        ({"arrival": "closed_loop"}, r"workload\.arrival must be one of poisson, gamma, constant, batch"),
        ({"sessions_per_s": None}, r"workload\.sessions_per_s must be set with arrival=poisson"),
        ({"sessions_per_s": 0.0}, r"workload\.sessions_per_s must be > 0, got 0"),
        ({"cv": 1.0}, r"workload\.cv has no effect with arrival=poisson"),
        ({"arrival": "batch"}, r"workload\.sessions_per_s has no effect with arrival=batch"),
        ({"block_tokens": 0}, r"workload\.block_tokens must be >= 1, got 0"),
        ({"think": None}, r"workload\.think must be set where sessions have several turns"),
        ({"turns": Lengths(kind="fixed", tokens=1)}, r"workload\.think has no effect with turns fixed at 1"),
        ({"turns": Lengths(kind="fixed", tokens=0)}, r"workload\.turns\.tokens must be >= 1, got 0"),
        ({"system": replace(SYSTEM, number=0)}, r"workload\.system\.number must be >= 1, got 0"),
        ({"system": replace(SYSTEM, skew=-1.0)}, r"workload\.system\.skew must be >= 0, got -1"),
        ({"system": replace(SYSTEM, number=1, skew=1.0)}, r"system\.skew has no effect with one system prompt"),
        ({"system": replace(SYSTEM, tokens=Lengths(kind="fixed"))}, r"workload\.system\.tokens\.tokens must be set"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BASE, **change)
