"""Several workloads at once, as one stream."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.draws import derive, key
from sim.request import SENT_AT_ARRIVAL, Requests
from sim.workload.base import Workload
from sim.workload.classes import check_priority


@dataclass(kw_only=True, slots=True)
class Mix(Workload):
    """The requests of all `parts`, merged by arrival; each part is a group, or several where it has several.

    A part draws from a seed of its own, made of the seed and its name: what the others are changes nothing in it.

    Attributes:
        parts: name -> workload, at least two. A group of the mix is called `name`, or `name/group` where a part has
            several groups.
        priority: part -> priority, the smaller is served first; for each part, or for none.
    """

    parts: dict[str, Workload]
    priority: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError(f"workload.parts must name at least two workloads, got {list(self.parts)}")
        check_priority(self.priority, list(self.parts))

    def requests(self, seed: int) -> Requests:
        root = key(seed, "mix")
        streams = [
            part.requests(int(derive(root, zlib.crc32(name.encode()))) >> 1) for name, part in self.parts.items()
        ]
        for name, stream in zip(self.parts, streams, strict=True):
            if stream.concurrency:
                raise ValueError(
                    f"workload.parts.{name} has a closed loop of interchangeable requests, which no other stream can "
                    "join; use ClosedLoop, whose clients have chains of their own"
                )
            if self.priority and stream.priority is not None:
                raise ValueError(f"workload.priority cannot be set where workload.parts.{name} has priorities itself")
        return _merged(list(self.parts), streams, [self.priority.get(name) for name in self.parts])


def _merged(names: list[str], streams: list[Requests], priority: list[int | None]) -> Requests:
    first_row = np.cumsum([0, *map(len, streams)])
    arrival_s = np.concatenate([stream.arrival_s for stream in streams])
    order = np.argsort(arrival_s, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    first_group = np.cumsum([0, *(len(stream.groups) for stream in streams)]).astype(np.int32)
    parts = list(zip(names, streams, strict=True))
    columns: dict[str, Any] = {
        "arrival_s": arrival_s[order],
        "prompt_tokens": np.concatenate([stream.prompt_tokens for stream in streams])[order],
        "output_tokens": np.concatenate([stream.output_tokens for stream in streams])[order],
        "group": np.concatenate([s.group + f for s, f in zip(streams, first_group, strict=False)])[order],
        "groups": tuple(
            name if len(part.groups) == 1 else f"{name}/{group}" for name, part in parts for group in part.groups
        ),
        "dropped": tuple((f"{name}: {reason}", count) for name, part in parts for reason, count in part.dropped),
        "cancel_s": _column([s.cancel_s for s in streams], streams, np.inf, order),
        "think_s": _column([s.think_s for s in streams], streams, 0.0, order),
    }
    given = [
        np.full(len(s), p, np.int64) if p is not None else s.priority for s, p in zip(streams, priority, strict=True)
    ]
    columns["priority"] = _column(given, streams, 0, order)
    if columns["think_s"] is not None:
        shifted = [_shifted(s, int(first)) for s, first in zip(streams, first_row, strict=False)]
        after = np.concatenate(shifted)
        columns["after"] = np.where(after == SENT_AT_ARRIVAL, SENT_AT_ARRIVAL, number[after])[order]
    return Requests(**columns, **_blocks(parts, order))


def _column(
    given: Sequence[NDArray[Any] | None], streams: list[Requests], absent: float, order: NDArray[np.int64]
) -> NDArray[Any] | None:
    """One optional column of the mix: `absent` in the rows of streams without it; None where no stream has it."""
    dtypes = [column.dtype for column in given if column is not None]
    if not dtypes:
        return None
    filled = [
        np.full(len(stream), absent, dtypes[0]) if column is None else column
        for stream, column in zip(streams, given, strict=True)
    ]
    return np.concatenate(filled)[order]


def _shifted(stream: Requests, first: int) -> NDArray[np.int64]:
    """`after` of a stream whose rows start at `first`."""
    if stream.after is None:
        return np.full(len(stream), SENT_AT_ARRIVAL, np.int64)
    return np.where(stream.after == SENT_AT_ARRIVAL, SENT_AT_ARRIVAL, stream.after + first)


def _blocks(parts: list[tuple[str, Requests]], order: NDArray[np.int64]) -> dict[str, Any]:
    """Block columns of the mix: the ids of each part are moved behind those of the one before, so that none is shared.

    Raises:
        ValueError: the parts' blocks differ in size, or their ids do not fit side by side into 63 bits.
    """
    sizes = {name: part.block_tokens for name, part in parts if part.block_tokens}
    if not sizes:
        return {}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"workload.parts must agree on the tokens of a block id, got {sizes}")
    prompts: list[NDArray[np.int64]] = []
    answers: list[NDArray[np.int64]] = []
    first = 0
    for name, part in parts:
        nothing = (np.zeros(0, np.int64),) * len(part)
        own = [part.block_ids or nothing, part.generated_block_ids or nothing]
        behind = first + 1 + max((int(ids.max()) for rows in own for ids in rows if ids.size), default=-1)
        if behind >= 2**63:
            raise ValueError(f"workload.parts.{name} has block ids so large that no other part's fit beside them")
        prompts += [ids + first for ids in own[0]]
        answers += [ids + first for ids in own[1]]
        first = behind
    generated = any(part.generated_block_ids is not None for _, part in parts)
    return {
        "block_tokens": next(iter(sizes.values())),
        "block_ids": tuple(prompts[row] for row in order),
        "generated_block_ids": tuple(answers[row] for row in order) if generated else None,
    }
