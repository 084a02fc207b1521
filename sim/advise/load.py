"""The same requests at another load: arrivals nearer together, or more of them in flight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sim.request import Requests

Kind = Literal["rate_per_s", "concurrency"]


@dataclass(frozen=True, slots=True)
class Load:
    """How hard a stream presses.

    Attributes:
        kind: `rate_per_s`, mean arrivals per second of an open stream; `concurrency`, requests in flight in a closed
            loop or sent all at once.
        value: how much of it.
    """

    kind: Kind
    value: float

    def __str__(self) -> str:
        return f"{self.value:.3g} requests/s" if self.kind == "rate_per_s" else f"{self.value:.0f} in flight"


def load_of(requests: Requests) -> Load:
    """The load of a stream as it is: of requests that follow others, the first ones alone.

    Clients that start at once and wait for their answers count as requests in flight.
    """
    if requests.concurrency:
        return Load("concurrency", float(requests.concurrency))
    first_s = requests.arrival_s if requests.after is None else requests.arrival_s[requests.after < 0]
    span_s = float(first_s[-1] - first_s[0])
    if span_s <= 0.0:
        return Load("concurrency", float(len(first_s)))
    return Load("rate_per_s", (len(first_s) - 1) / span_s)


def at_load(requests: Requests, load: Load) -> Requests:
    """`requests` under `load`: the gaps between arrivals all shorter or longer, or so many in flight."""
    if load == load_of(requests):
        return requests
    if load.kind == "concurrency":
        return replace(requests, arrival_s=np.zeros(len(requests)), concurrency=min(len(requests), round(load.value)))
    factor = load_of(requests).value / load.value
    return replace(requests, arrival_s=requests.arrival_s * factor)


def grid(requests: Requests, capacity_per_s: float, most_seqs: int) -> list[Load]:
    """Loads from nearly idle to more than can be served, the stream's own among them.

    Args:
        requests: the stream.
        capacity_per_s: requests per second that the deployment serves without SD when all come at once.
        most_seqs: requests that can run at once.

    Returns:
        Growing; the stream's own alone where its requests wait for one another and start at once.
    """
    own = load_of(requests)
    if own.kind == "concurrency" and requests.after is not None:
        return [own]
    if own.kind == "concurrency":
        most = min(len(requests), most_seqs)
        values = {float(2**k) for k in range(most.bit_length())} | {float(most), min(own.value, float(most))}
    else:
        values = {share * capacity_per_s for share in _SHARES} | {own.value}
    return [Load(own.kind, value) for value in sorted(values)]


_SHARES = (0.05, 0.3, 0.6, 0.85, 1.2)
"""Of what can be served without SD: latencies bend between 0.5 and 1."""
