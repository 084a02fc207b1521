"""Replay of recorded acceptable depths.

Two formats, plain or gzip. JSON lines, one object per request; entry i of `depths` is for a round that starts when i
output tokens are out (entry 0 is never asked for: the prefill emits the first token):

    {"request": 0, "depths": [2, 0, 3, 1]}

CSV, one row per output position, in any order:

    request,position,depth
    0,0,2

`request` is the request's row in the workload, 0, 1, 2, ... without gaps. A depth is how many drafts would have been
accepted there, the bonus token not counted. A log of rounds knows depths only where rounds started: replaying it under
another draft length needs the positions in between, so the recorder must fill them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.draws import Keys
from sim.request import Requests
from sim.speculation.acceptance.base import Acceptance, Depths
from sim.workload.reading import Record, Records, RowError, csv_records, json_records, read_lines, whole

Row = tuple[int, int, int]  # request, position, depth


@dataclass(kw_only=True, slots=True)
class Recorded(Acceptance):
    """The depths of a file, request by request.

    Attributes:
        path: JSON lines or CSV, formats above.
        recorded_drafts: drafts per round while recording, at which the depths are cut; 0: not cut.
    """

    path: str
    recorded_drafts: int = 0

    def __post_init__(self) -> None:
        if self.recorded_drafts < 0:
            raise ValueError(
                f"speculation.acceptance.recorded_drafts must be >= 0 (0: not cut), got {self.recorded_drafts}"
            )

    def survival(self, depth: int) -> NDArray[np.float64]:
        """Shares of the recorded positions."""
        flat, _ = self._read(depth)
        return np.array([np.mean(flat >= j) for j in range(1, depth + 1)])

    def mean_accepted(self, drafts: int) -> float:
        """Of the rounds that `drafts` drafts per round would take through the recordings, to their ends."""
        flat, bounds = self._read(drafts)
        accepted, ends = np.minimum(flat, drafts).tolist(), bounds[1:].tolist()
        rounds = total = 0
        for start, end in zip(bounds[:-1].tolist(), ends, strict=True):
            at = start + 1
            while at < end:
                rounds, total = rounds + 1, total + accepted[at]
                at += accepted[at] + 1
        return total / rounds if rounds else 0.0

    def check(self, requests: Requests) -> None:
        """Every request must be recorded to the end of its output, and none may have been dropped."""
        if requests.dropped:
            raise ValueError(
                f"speculation.acceptance=recorded follows the rows of the workload, {requests.dropped} were dropped; "
                "remove them from both files"
            )
        _, bounds = self._read(0)
        recorded = np.diff(bounds)
        if len(requests) > len(recorded):
            raise ValueError(
                f"{self.path}: must hold every request of the workload, {len(requests)}, got {len(recorded)}"
            )
        short = np.flatnonzero(recorded[: len(requests)] < requests.output_tokens)
        if len(short):
            row = int(short[0])
            raise ValueError(
                f"{self.path}: the recording of {requests.where(row)} must be as long as its output of "
                f"{requests.output_tokens[row]} tokens, got {recorded[row]} depths"
            )

    def depths(
        self,
        request_keys: Keys,
        positions: NDArray[np.int64],
        depth: int,
        requests: Requests | None = None,
        ids: NDArray[np.int64] | None = None,
    ) -> Depths:
        """What was recorded, cut at `depth`."""
        if ids is None:
            raise ValueError("recorded depths need the rows of the requests in the stream")
        flat, bounds = self._read(depth)
        if np.any(np.asarray(ids) >= len(bounds) - 1):
            raise ValueError(f"{self.path}: must hold every request of the workload, got {len(bounds) - 1}")
        where = bounds[ids] + positions
        beyond = where >= bounds[np.asarray(ids) + 1]
        if np.any(beyond):
            row = int(np.broadcast_to(ids, beyond.shape)[beyond].flat[0])
            raise ValueError(
                f"{self.path}: the recording of request {row} must be as long as its output, got "
                f"{bounds[row + 1] - bounds[row]} depths"
            )
        depths: Depths = np.minimum(flat[where], depth)
        return depths

    def _read(self, depth: int) -> tuple[Depths, Depths]:
        """All depths request after request, and the bounds of each request's own."""
        if 0 < self.recorded_drafts < depth:
            raise ValueError(
                f"{self.path} was recorded with {self.recorded_drafts} drafts per round and knows nothing deeper, "
                f"got {depth} drafts; shorten speculation.length"
            )
        if not Path(self.path).is_file():
            raise ValueError(f"speculation.acceptance.path must be a readable file, got {self.path!r}")
        flat, bounds = _load(self.path, Path(self.path).stat().st_mtime_ns)
        if self.recorded_drafts and flat.max() > self.recorded_drafts:
            raise ValueError(
                f"speculation.acceptance.recorded_drafts must be >= the deepest depth of {self.path}, {flat.max()}, "
                f"got {self.recorded_drafts}"
            )
        return flat, bounds


@lru_cache(maxsize=2)
def _load(path: str, changed_ns: int) -> tuple[Depths, Depths]:  # noqa: ARG001  (a changed file is another file)
    """All depths of the file request after request, and the bounds of each request's own."""
    as_json = next(read_lines(path)).lstrip().startswith("{")
    records = json_records(path) if as_json else csv_records(path, ("request", "position", "depth"))
    rows = np.array(list(_rows(path, records, _json_rows if as_json else _csv_rows)), dtype=np.int64).reshape(-1, 3)
    request, position, depth = rows[np.lexsort((rows[:, 1], rows[:, 0]))].T
    counts = np.bincount(request)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    wrong = position != np.arange(len(position)) - bounds[request]
    if not counts.all() or wrong.any():
        faulty = int(np.argmin(counts)) if not counts.all() else int(request[np.argmax(wrong)])
        raise ValueError(f"{path}: request {faulty} must have one depth at each of the positions 0, 1, 2, ...")
    return depth, bounds


def _rows(path: str, records: Records, parse: Callable[[Record], list[Row]]) -> Iterator[Row]:
    for line, record in records:
        try:
            rows = parse(_whole_record(record))
        except RowError as error:
            raise ValueError(f"{path}:{line}: {error}") from error
        yield from rows


def _whole_record(record: Record | RowError) -> Record:
    if isinstance(record, RowError):
        raise record
    return record


def _json_rows(record: Record) -> list[Row]:
    depths = record.get("depths")
    if not isinstance(depths, list) or not depths:
        raise RowError("depths must be a list of at least one depth", depths)
    request = whole(record, "request")
    return [(request, position, whole({"depths": depth}, "depths")) for position, depth in enumerate(depths)]


def _csv_rows(record: Record) -> list[Row]:
    return [(whole(record, "request"), whole(record, "position"), whole(record, "depth"))]
