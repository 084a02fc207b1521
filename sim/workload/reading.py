"""Rows of a trace file, plain or gzip, CSV or JSON lines; every complaint names file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Records = Iterator[tuple[int, "Record | RowError"]]

_GZIP_MAGIC = b"\x1f\x8b"


class RowError(ValueError):
    """One row that does not fit its format.

    `reason` is the same for all rows with this fault, so that they can be counted; the message adds what was found.
    """

    def __init__(self, reason: str, found: object = None) -> None:
        super().__init__(reason if found is None else f"{reason}, got {found!r}")
        self.reason = reason


def read_lines(path: str) -> Iterator[str]:
    """Lines of a text file; whether it is gzip is told by its first bytes, not by its name.

    Raises:
        ValueError: no such file, no text in it, a damaged or cut gzip stream, bytes that are not UTF-8.
    """
    number = 0
    try:
        with Path(path).open("rb") as raw:
            packed = raw.peek(2)[:2] == _GZIP_MAGIC
            data = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
            with io.TextIOWrapper(data, encoding="utf-8-sig", newline="") as text:
                for line in text:
                    number += 1
                    yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}:{number + 1}: gzip stream is damaged or cut short; fetch the file again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{number + 1}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise ValueError(f"workload.path must be a readable file, got {path!r} ({error.strerror})") from error
    if number == 0:
        raise ValueError(f"{path}:1: empty file")


def csv_records(path: str, columns: Iterable[str], lines: Iterable[str] | None = None) -> Records:
    """(line, row by column name) of a CSV file whose first line names its columns; blank lines are passed over.

    A row with too few or too many fields comes as a `RowError`, for the caller to refuse or to count.

    Raises:
        ValueError: what `read_lines` raises, a missing column, broken quoting.
    """
    reader = csv.reader(read_lines(path) if lines is None else lines, skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        missing = [name for name in columns if name not in header]
        if missing:
            raise ValueError(f"{path}:1: missing column {', '.join(missing)}; the file has {', '.join(header)}")
        for fields in reader:
            if len(fields) == len(header):
                yield reader.line_num, dict(zip(header, fields, strict=True))
            elif fields:
                yield reader.line_num, RowError(f"must have {len(header)} fields", len(fields))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV ({error})") from error


def json_records(path: str, lines: Iterable[str] | None = None) -> Records:
    """(line, object) of a file with one JSON object per line; what is none comes as a `RowError`."""
    for number, line in enumerate(read_lines(path) if lines is None else lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            yield number, RowError("must be a JSON object", line.strip()[:40])
            continue
        yield number, record if isinstance(record, dict) else RowError("must be a JSON object", line.strip()[:40])


def whole(record: Record, name: str) -> int:
    """Field `name` as a count in [0, 2^31), from CSV text or a JSON integer."""
    value = _field(record, name)
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**31:
        raise RowError(f"{name} must be a whole number in [0, 2^31)", value)
    return value


def number(record: Record, name: str) -> float:
    """Field `name` as a finite number >= 0, from CSV text or a JSON number."""
    value = _field(record, name)
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not 0 <= result < math.inf:
        raise RowError(f"{name} must be a finite number >= 0", value)
    return result


def _field(record: Record, name: str) -> Any:
    if name not in record:
        raise RowError(f"{name} is missing")
    return record[name]
