"""JSON of benchmark tools; every complaint names file and key."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.workload.reading import read_lines

_CLOCKS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}


def read_documents(path: str) -> list[dict[str, Any]]:
    """The JSON objects of a file, one after the other (as `vllm bench serve --append-result` leaves them).

    Raises:
        ValueError: no such file, not JSON, something that is no object.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: must be the result file of a benchmark, got no such file")
    text = "".join(read_lines(path)).strip()
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON ({error})") from error
        found.append(_object(value, f"{path}: the document"))
        at += len(text) - at - len(text[at:].lstrip())
    return found


@dataclass(frozen=True, slots=True)
class Node:
    """A JSON object and where it stands.

    Attributes:
        values: the object.
        where: file and keys down to it, for messages.
    """

    values: dict[str, Any]
    where: str

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def at(self, key: str) -> Any:
        """The value of `key`.

        Raises:
            ValueError: there is none.
        """
        if key not in self:
            raise ValueError(f"{self.where}: {key} is missing; the keys there are {', '.join(self.values) or 'none'}")
        return self.values[key]

    def node(self, key: str) -> Node:
        """The object under `key`."""
        where = f"{self.where}: {key}"
        return Node(_object(self.at(key), where), where)

    def nodes(self, key: str) -> list[Node]:
        """The objects in the list under `key`."""
        named = [(value, f"{self.where}: {key}[{i}]") for i, value in enumerate(self.rows(key))]
        return [Node(_object(value, where), where) for value, where in named]

    def rows(self, key: str, n: int | None = None) -> list[Any]:
        """The list under `key`, of `n` entries where that is given."""
        value: list[Any] = self.at(key)
        if type(value) is not list:
            raise ValueError(f"{self.where}: {key} must be a list, got {value!r:.40}")
        if n is not None and len(value) != n:
            raise ValueError(f"{self.where}: {key} must have {n} entries like the other lists, got {len(value)}")
        return value

    def number(self, key: str) -> float:
        """The finite number >= 0 under `key`."""
        return non_negative(self.at(key), f"{self.where}: {key}")

    def numbers(self, key: str, n: int) -> NDArray[np.float64]:
        """The `n` finite numbers >= 0 under `key`."""
        found = [non_negative(value, f"{self.where}: {key}[{i}]") for i, value in enumerate(self.rows(key, n))]
        return np.array(found, dtype=np.float64)

    def counts(self, key: str, n: int) -> NDArray[np.int64]:
        """The `n` whole numbers >= 0 under `key`."""
        found = [whole(value, f"{self.where}: {key}[{i}]") for i, value in enumerate(self.rows(key, n))]
        return np.array(found, dtype=np.int64)

    def seconds_per_unit(self) -> float:
        """What the object's `unit` is worth in seconds."""
        unit = self.at("unit")
        if unit not in _CLOCKS:
            raise ValueError(f"{self.where}: unit must be one of {', '.join(_CLOCKS)}, got {unit!r}")
        return _CLOCKS[unit]


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError(f"{where} must be an object, got {value!r:.40}")
    return value


def non_negative(value: Any, where: str) -> float:
    """`value` as a finite number >= 0."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 <= value < math.inf:
        raise ValueError(f"{where} must be a finite number >= 0, got {value!r}")
    return float(value)


def whole(value: Any, where: str) -> int:
    """`value` as a count."""
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{where} must be a whole number in [0, 2^31), got {value!r}")
    return value
