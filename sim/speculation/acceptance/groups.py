"""Acceptance that differs between the groups of a request stream: data sets, clients, tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.draws import Keys, derive, uniform
from sim.request import Requests
from sim.speculation.acceptance.base import Acceptance, Depths, check_rates, padded


@dataclass(kw_only=True, slots=True)
class RatePerGroup(Acceptance):
    """Conditional rates per depth for every group of requests; depths beyond a list are never accepted.

    Attributes:
        rates: group name -> conditional rate at depth 1, 2, ...
        shares: group name -> share of the output tokens, for means over all groups; {} takes equal shares. The draws do
            not depend on it: there the stream says which request is of which group.
    """

    rates: dict[str, list[float]]
    shares: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rates:
            raise ValueError("speculation.acceptance.rates must name at least one group, got none")
        for group, rates in self.rates.items():
            check_rates(f"rates.{group}", rates)
        if self.shares and set(self.shares) != set(self.rates):
            raise ValueError(
                f"speculation.acceptance.shares must name the groups of rates, {', '.join(self.rates)}, "
                f"got {', '.join(self.shares)}"
            )
        if self.shares and (min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1.0) > 1e-6):
            raise ValueError(f"speculation.acceptance.shares must be >= 0 and sum to 1, got {self.shares}")

    def survival(self, depth: int) -> NDArray[np.float64]:
        """The mean of the groups' curves, weighted by their shares."""
        shares = self._shares()
        mean: NDArray[np.float64] = np.sum([share * self._curve(name, depth) for name, share in shares.items()], axis=0)
        return mean

    def mean_accepted(self, drafts: int) -> float:
        """Tokens over rounds: each group takes its share of the tokens in rounds of its own length."""
        shares = self._shares()
        rounds = sum(share / (1.0 + self._curve(name, drafts).sum()) for name, share in shares.items())
        return float(1.0 / rounds - 1.0)

    def check(self, requests: Requests) -> None:
        """Every group of the stream that holds a request must have rates."""
        present = [requests.groups[index] for index in np.unique(requests.group)]
        unknown = [group for group in present if group not in self.rates]
        if unknown:
            raise ValueError(
                f"speculation.acceptance.rates must name every group of the workload: {', '.join(unknown)} "
                f"missing, got {', '.join(self.rates)}"
            )

    def depths(
        self,
        request_keys: Keys,
        positions: NDArray[np.int64],
        depth: int,
        requests: Requests | None = None,
        ids: NDArray[np.int64] | None = None,
    ) -> Depths:
        """Each request by the curve of its group."""
        if requests is None or ids is None:
            raise ValueError("rates per group need the request stream and the rows of the requests in it")
        curves = np.array([self._curve(group, depth) for group in requests.groups])
        u = uniform(derive(request_keys, positions))
        group = requests.group[ids]
        depths = np.zeros(np.broadcast(u, group).shape, dtype=np.int64)
        for j in range(depth):
            depths += u < curves[group, j]
        return depths

    def _shares(self) -> dict[str, float]:
        return self.shares or dict.fromkeys(self.rates, 1.0 / len(self.rates))

    def _curve(self, group: str, depth: int) -> NDArray[np.float64]:
        return np.multiply.accumulate(padded(self.rates.get(group, []), depth))
