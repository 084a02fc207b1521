"""Workloads on top of others: mixes, classes, cancellation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.workload import Cancelling, Classes, ClosedLoop, Durations, Lengths, Mix, MooncakeTrace, Sessions, Synthetic

FIXED = Lengths(kind="fixed", tokens=10)
UNIFORM = Lengths(kind="uniform", min_tokens=1, max_tokens=99)
OPEN = Synthetic(num_requests=300, arrival="poisson", rate_per_s=2.0, prompt=UNIFORM, output=UNIFORM)
LOOP = ClosedLoop(
    num_requests=90, clients=10, think=Durations(kind="exponential", mean_s=1.0), prompt=UNIFORM, output=FIXED
)
CHAT = Sessions(
    num_sessions=30,
    arrival="poisson",
    sessions_per_s=1.0,
    turns=Lengths(kind="uniform", min_tokens=1, max_tokens=4),
    think=Durations(kind="fixed", seconds=2.0),
    prompt=UNIFORM,
    output=UNIFORM,
)
MIX = Mix(parts={"open": OPEN, "loop": LOOP, "chat": CHAT, "more": replace(CHAT, num_sessions=9)})


def test_a_mix_holds_every_part_whole() -> None:
    """Row by row, each part is what it is in any other mix: columns, chains and shared blocks."""
    mixed = MIX.requests(1)
    assert mixed.groups == ("open", "loop", "chat", "more")
    assert len(mixed) == 300 + 90 + sum(mixed.group == 2) + sum(mixed.group == 3)
    pair = Mix(parts={"chat": CHAT, "open": replace(OPEN, rate_per_s=9.0)}).requests(1)
    one, other = mixed.take(mixed.group == 2), pair.take(pair.group == 0)
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "after", "think_s"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert _sharing(one.block_ids) == _sharing(other.block_ids)
    assert _sharing(one.generated_block_ids) == _sharing(other.generated_block_ids)


def _sharing(rows: tuple[np.ndarray, ...]) -> list[list[int]]:
    """Block ids by order of first appearance: equal where the same blocks are shared, whatever they are called."""
    names: dict[int, int] = {}
    return [[names.setdefault(block, len(names)) for block in ids.tolist()] for ids in rows]


def test_parts_share_no_chain_and_no_block() -> None:
    mixed = MIX.requests(2)
    followed = mixed.after >= 0
    assert np.array_equal(mixed.group[followed], mixed.group[mixed.after[followed]])
    blocks = [{b for row in np.flatnonzero(mixed.group == g) for b in mixed.block_ids[row].tolist()} for g in range(4)]
    assert not blocks[0] and not blocks[1]
    assert blocks[2] and blocks[3] and not blocks[2] & blocks[3]


def test_two_equal_parts_draw_apart() -> None:
    mixed = Mix(parts={"a": OPEN, "b": OPEN}).requests(0)
    one, other = (mixed.take(mixed.group == g) for g in (0, 1))
    assert not np.array_equal(one.prompt_tokens, other.prompt_tokens)


def test_optional_columns_are_filled_up_where_one_part_has_them() -> None:
    hasty = Cancelling(base=OPEN, patience=Durations(kind="fixed", seconds=3.0))
    mixed = Mix(parts={"hasty": hasty, "loop": LOOP}, priority={"hasty": 5, "loop": 1}).requests(0)
    assert set(mixed.cancel_s[mixed.group == 0]) == {3.0}
    assert set(mixed.cancel_s[mixed.group == 1]) == {np.inf}
    assert mixed.priority.tolist() == np.where(mixed.group == 0, 5, 1).tolist()
    assert mixed.block_ids is None and mixed.block_tokens == 0
    plain = Mix(parts={"a": OPEN, "b": OPEN}).requests(0)
    assert plain.after is None and plain.think_s is None and plain.cancel_s is None and plain.priority is None


def test_a_trace_brings_its_blocks_and_groups_and_what_was_dropped(root: Path) -> None:
    trace = MooncakeTrace(path=str(root / "tests" / "data" / "mooncake.jsonl"))
    alone, mixed = trace.requests(0), Mix(parts={"open": OPEN, "trace": trace}).requests(0)
    part = mixed.take(mixed.group == 1)
    assert _sharing(part.block_ids) == _sharing(alone.block_ids)
    assert mixed.block_tokens == 512 and mixed.generated_block_ids is None
    assert dict(mixed.dropped) == {f"trace: {reason}": count for reason, count in alone.dropped}
    classes = Classes(base=OPEN, shares={"x": 0.5, "y": 0.5})
    assert Mix(parts={"trace": trace, "open": classes}).requests(0).groups == ("trace", "open/x", "open/y")
    with pytest.raises(ValueError, match=r"agree on the tokens of a block id, got \{'trace': 512, 'chat': 16\}"):
        Mix(parts={"trace": trace, "chat": CHAT}).requests(0)


def test_classes_have_their_shares_and_a_session_stays_in_one() -> None:
    many = Classes(base=replace(OPEN, num_requests=20_000), shares={"a": 0.7, "b": 0.3}, priority={"a": 0, "b": 7})
    requests = many.requests(0)
    assert (requests.group == 0).mean() == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / 20_000))
    assert requests.priority.tolist() == (7 * requests.group).tolist()
    chat = Classes(base=CHAT, shares={"a": 0.5, "b": 0.5}).requests(0)
    followed = chat.after >= 0
    assert np.array_equal(chat.group[followed], chat.group[chat.after[followed]])
    assert set(chat.group.tolist()) == {0, 1}
    assert chat.priority is None


def test_cancelling_takes_its_share_with_its_patience_and_leaves_the_rest_alone() -> None:
    base = replace(OPEN, num_requests=20_000)
    requests = Cancelling(base=base, share=0.25, patience=Durations(kind="exponential", mean_s=4.0)).requests(3)
    gives_up = np.isfinite(requests.cancel_s)
    assert gives_up.mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.19 / 20_000))
    assert requests.cancel_s[gives_up].mean() == pytest.approx(4.0, rel=5 / np.sqrt(5_000))
    assert np.array_equal(requests.arrival_s, base.requests(3).arrival_s)
    more = Cancelling(base=base, share=0.5, patience=Durations(kind="exponential", mean_s=4.0)).requests(3)
    assert np.array_equal(more.cancel_s[gives_up], requests.cancel_s[gives_up])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Mix(parts={"a": OPEN}), r"workload\.parts must name at least two workloads, got \['a'\]"),
        (lambda: Mix(parts={"a": OPEN, "b": OPEN}, priority={"a": 1}), r"priority must name each of a, b, got a"),
        (lambda: replace(MIX, priority=dict.fromkeys(MIX.parts, 1)), r"priority has no effect where all are equal"),
        (lambda: Classes(base=OPEN, shares={"a": 1.0}), r"shares must name at least two classes, got \['a'\]"),
        (lambda: Classes(base=OPEN, shares={"a": 0.5, "b": 0.6}), r"workload\.shares must add up to 1, got 1\.1"),
        (lambda: Classes(base=OPEN, shares={"a": 1.0, "b": 0.0}), r"shares\.b must lie in \(0, 1\], got 0"),
        (lambda: Cancelling(base=OPEN, share=0.0, patience=LOOP.think), r"workload\.share must lie in \(0, 1\], got 0"),
        (
            lambda: Cancelling(base=OPEN, patience=Durations(kind="fixed", seconds=0.0)),
            r"workload\.patience\.seconds must be > 0, got 0",
        ),
    ],
)
def test_bad_settings_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_what_cannot_stand_together_is_refused() -> None:
    shared_loop = Synthetic(num_requests=9, arrival="closed_loop", concurrency=2, prompt=FIXED, output=FIXED)
    hasty = Cancelling(base=OPEN, patience=LOOP.think)
    ranked = Classes(base=OPEN, shares={"x": 0.5, "y": 0.5}, priority={"x": 0, "y": 1})
    for workload, message in (
        (Mix(parts={"a": OPEN, "b": shared_loop}), r"parts\.b has a closed loop of interchangeable requests"),
        (Mix(parts={"a": ranked, "b": OPEN}, priority={"a": 0, "b": 1}), r"priority cannot be set where .*parts\.a"),
        (Cancelling(base=hasty, patience=LOOP.think), r"workload\.base cancels requests already"),
        (Classes(base=ranked, shares={"p": 0.5, "q": 0.5}), r"base must have one group .* got x, y"),
    ):
        with pytest.raises(ValueError, match=message):
            workload.requests(0)
