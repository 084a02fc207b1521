"""Clients that give up: cancellation on top of any workload."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.draws import derive, key, uniform
from sim.request import Requests
from sim.workload.base import Workload, generator, require_share
from sim.workload.durations import Durations


@dataclass(kw_only=True, slots=True)
class Cancelling(Workload):
    """The requests of `base`, of which clients cancel those that outlast their patience.

    Attributes:
        base: the workload.
        share: of the requests, how many have a client who may give up, in (0, 1]; the others wait for ever.
        patience: seconds from arrival to giving up, > 0; fixed is a deadline for all.
    """

    base: Workload
    share: float = 1.0
    patience: Durations

    def __post_init__(self) -> None:
        require_share("workload.share", self.share)
        self.patience.check("workload.patience")
        if self.patience.seconds == 0:
            raise ValueError("workload.patience.seconds must be > 0, got 0")

    def requests(self, seed: int) -> Requests:
        base = self.base.requests(seed)
        if base.cancel_s is not None:
            raise ValueError("workload.base cancels requests already; give it one cancelling workload, not two")
        n = len(base)
        patience_s = self.patience.sample(n, generator(seed, "patience"))
        impatient = uniform(derive(key(seed, "cancel"), np.arange(n))) < self.share
        return replace(base, cancel_s=np.where(impatient, patience_s, np.inf))
