"""Traces as their publishers wrote them, and our own simple format: one class per format.

None of these files comes with the project; `conf/workload/` says where the public gets each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sim.workload.reading import Record, Records, RowError, csv_records, json_records, number, read_lines, whole
from sim.workload.traces import Row, RowTrace

_YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:\+00:00)?", re.ASCII)


@dataclass(kw_only=True, slots=True)
class AzureTrace(RowTrace):
    """Azure LLM inference traces of 2023 and 2024: CSV with a date and time of up to 9 decimals.

    Source: Patel et al., "Splitwise" (ISCA 2024); Stojkovic et al., "DynamoLLM" (HPCA 2025).
    """

    TICKS_PER_S: ClassVar[int] = 10**9

    def records(self) -> Records:
        return csv_records(self.path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))

    def parse(self, record: Record) -> Row:
        time_ns = _nanoseconds(record["TIMESTAMP"])
        return Row(time_ns, whole(record, "ContextTokens"), whole(record, "GeneratedTokens"))


@dataclass(kw_only=True, slots=True)
class MooncakeTrace(RowTrace):
    """Mooncake traces: JSON lines in milliseconds with one id per 512-token block of the prompt.

    An id stands for the block and all before it, so equal ids mean an equal prefix.

    Source: Qin et al., "Mooncake" (FAST 2025).
    """

    TICKS_PER_S: ClassVar[int] = 1000
    BLOCK_TOKENS: ClassVar[int] = 512

    def records(self) -> Records:
        return json_records(self.path)

    def parse(self, record: Record) -> Row:
        prompt_tokens = whole(record, "input_length")
        return Row(
            number(record, "timestamp"),
            prompt_tokens,
            whole(record, "output_length"),
            block_ids=_block_ids(record, -(-prompt_tokens // self.BLOCK_TOKENS)),
        )


@dataclass(kw_only=True, slots=True)
class BurstGptTrace(RowTrace):
    """BurstGPT: CSV in seconds; the log type (conversation or API) is the group. 0 response tokens mark a failure.

    Source: Wang et al., "BurstGPT" (KDD 2025).
    """

    def records(self) -> Records:
        return csv_records(self.path, ("Timestamp", "Request tokens", "Response tokens", "Log Type"))

    def parse(self, record: Record) -> Row:
        return Row(
            number(record, "Timestamp"),
            whole(record, "Request tokens"),
            whole(record, "Response tokens"),
            record["Log Type"],
        )


@dataclass(kw_only=True, slots=True)
class SimpleTrace(RowTrace):
    """Our own format: CSV or JSON lines with arrival_s, prompt_tokens, output_tokens (>= 1) and, if wanted, group."""

    ZERO_TOKENS: ClassVar[str] = ""

    def records(self) -> Records:
        lines = read_lines(self.path)
        first = next(lines)
        lines = chain((first,), lines)
        if first.lstrip().startswith("{"):
            return json_records(self.path, lines)
        return csv_records(self.path, ("arrival_s", "prompt_tokens", "output_tokens"), lines)

    def parse(self, record: Record) -> Row:
        group = record.get("group") or "all"
        return Row(
            number(record, "arrival_s"), whole(record, "prompt_tokens"), whole(record, "output_tokens"), str(group)
        )


def _nanoseconds(text: str) -> int:
    """`2023-11-16 18:15:46.6805900` in whole nanoseconds, exactly: a double of seconds since 1970 resolves 240 ns only.

    The 2024 traces append `+00:00`; another offset is refused.
    """
    found = _TIMESTAMP.fullmatch(text)
    try:
        since = datetime.fromisoformat(f"{found[1]}+00:00") if found else None
    except ValueError:
        since = None
    if found is None or since is None:
        raise RowError("TIMESTAMP must be a date and time such as 2023-11-16 18:15:46.6805900", text)
    elapsed = since - _YEAR_ONE
    return (elapsed.days * 86_400 + elapsed.seconds) * 10**9 + int((found[2] or "0").ljust(9, "0"))


def _block_ids(record: Record, most: int) -> NDArray[np.int64]:
    """`hash_ids` as int64, at most `most` of them."""
    found = record.get("hash_ids")
    if not isinstance(found, list) or not all(type(block) is int and 0 <= block < 2**63 for block in found):
        raise RowError("hash_ids must be a list of whole numbers in [0, 2^63)", found)
    if len(found) > most:
        raise RowError("hash_ids must hold at most one id per 512 prompt tokens", len(found))
    return np.array(found, np.int64)
