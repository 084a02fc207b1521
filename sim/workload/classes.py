"""Classes of service: each request of a workload, or each chain of requests, belongs to one by chance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sim.draws import derive, key, uniform
from sim.request import Requests
from sim.workload.base import Workload, require_share


@dataclass(kw_only=True, slots=True)
class Classes(Workload):
    """The requests of `base` in classes, which become their groups: what SLOs are stated for and schedulers prefer.

    Attributes:
        base: the workload; of one group.
        shares: class -> share of the requests (of the chains, where requests follow others), in (0, 1], in all 1.
        priority: class -> priority, the smaller is served first; for each class, or for none.
    """

    base: Workload
    shares: dict[str, float]
    priority: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.shares) < 2:
            raise ValueError(f"workload.shares must name at least two classes, got {list(self.shares)}")
        for name, share in self.shares.items():
            require_share(f"workload.shares.{name}", share)
        if not math.isclose(sum(self.shares.values()), 1, rel_tol=1e-9):
            raise ValueError(f"workload.shares must add up to 1, got {sum(self.shares.values())}")
        check_priority(self.priority, list(self.shares))

    def requests(self, seed: int) -> Requests:
        base = self.base.requests(seed)
        if len(base.groups) > 1:
            raise ValueError(f"workload.base must have one group to be cut into classes, got {', '.join(base.groups)}")
        below = np.cumsum(list(self.shares.values()))
        drawn = uniform(derive(key(seed, "class"), _first_of_chain(base)))
        group = np.minimum(np.searchsorted(below, drawn, side="right"), len(below) - 1)
        priority = np.array([self.priority[name] for name in self.shares], np.int64)[group] if self.priority else None
        return replace(base, group=group.astype(np.int32), groups=tuple(self.shares), priority=priority)


def check_priority(priority: dict[str, int], names: list[str]) -> None:
    """Refuses priorities that leave a class out, name an unknown one, or are all equal and so without effect."""
    if priority and set(priority) != set(names):
        raise ValueError(f"workload.priority must name each of {', '.join(names)}, got {', '.join(priority)}")
    if priority and len(set(priority.values())) == 1:
        raise ValueError(f"workload.priority has no effect where all are equal, got {priority}; leave it out")


def _first_of_chain(requests: Requests) -> NDArray[np.int64]:
    """The first request int64 (n,) of the chain each request is in."""
    first = np.arange(len(requests))
    if requests.after is not None:
        for request, earlier in enumerate(requests.after.tolist()):
            if earlier >= 0:
                first[request] = first[earlier]
    return first
