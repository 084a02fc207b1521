"""What every workload is: a policy value that turns a seed into a request stream."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sim.draws import derive, key
from sim.request import Requests


@dataclass(kw_only=True, slots=True)
class Workload(ABC):
    """Interface of all workloads and their Hydra schema; not frozen because OmegaConf needs that, never mutated."""

    @abstractmethod
    def requests(self, seed: int) -> Requests:
        """The stream for `seed`: same fields and seed, same bytes."""


def generator(seed: int, stream: str, *address: int) -> np.random.Generator:
    """The generator of one named stream of randomness, or of the part of it at the whole-number `address`.

    Streams with different names are independent and each starts afresh, so that changing what one of them is used for
    never reshuffles another: with new lengths the arrivals stay as they were.
    """
    keys = key(seed, stream)
    for index in address:
        keys = derive(keys, index)
    return np.random.default_rng(int(keys))


def require_at_least(field: str, value: float | None, bound: float) -> None:
    """Refuses `value` below `bound`; None (not set) passes."""
    if value is not None and not (value >= bound and math.isfinite(value)):
        raise ValueError(f"{field} must be >= {bound}, got {value}")


def require_positive(field: str, value: float | None) -> None:
    """Refuses a `value` that is not a finite number above 0; None (not set) passes."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{field} must be > 0, got {value}")


def require_share(field: str, value: float) -> None:
    """Refuses a share of nothing or of more than everything."""
    if not 0 < value <= 1:
        raise ValueError(f"{field} must lie in (0, 1], got {value}")


def require_settings(
    prefix: str, choice: str, chosen: str, settings: Mapping[str, object], needs: Mapping[str, Iterable[str]]
) -> None:
    """Checks that `chosen` is a known kind and that exactly the settings it needs are set (are not None).

    Args:
        prefix: path of the object in the configuration, such as `workload.prompt`.
        choice: name of the field that chooses, such as `kind`.
        chosen: its value.
        settings: name -> value of every setting that belongs to some kind.
        needs: kind -> names of the settings it needs; a name that ends in `?` is optional.
    """
    if chosen not in needs:
        raise ValueError(f"{prefix}.{choice} must be one of {', '.join(needs)}, got {chosen!r}")
    known = {name.rstrip("?"): not name.endswith("?") for name in needs[chosen]}
    for name, value in settings.items():
        if value is None and known.get(name):
            raise ValueError(f"{prefix}.{name} must be set with {choice}={chosen}, got none")
        if value is not None and name not in known:
            raise ValueError(
                f"{prefix}.{name} has no effect with {choice}={chosen}, got {value}; leave it out or set it to null"
            )
