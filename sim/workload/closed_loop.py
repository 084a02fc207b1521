"""A closed loop: a fixed number of clients, each of which thinks and then sends its next request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.request import Requests
from sim.workload.base import Workload, generator, require_at_least
from sim.workload.chains import Chains
from sim.workload.durations import Durations
from sim.workload.lengths import Lengths


@dataclass(kw_only=True, slots=True)
class ClosedLoop(Workload):
    """`num_requests` requests, dealt to `clients` in turn: a client has one in flight, or thinks about the next.

    Without think time and with requests that any client may send, `Synthetic` with arrival=closed_loop is the same as
    `--max-concurrency` of the usual benchmark commands.

    Attributes:
        num_requests: >= 1.
        clients: 1 to num_requests.
        think: from the end of a client's request to its next.
        ramp_s: the clients start evenly spread over so many seconds, >= 0.
        prompt, output: distributions of the prompt and output tokens.
    """

    num_requests: int
    clients: int
    think: Durations
    ramp_s: float = 0.0
    prompt: Lengths
    output: Lengths

    def __post_init__(self) -> None:
        require_at_least("workload.num_requests", self.num_requests, 1)
        if not 1 <= self.clients <= self.num_requests:
            raise ValueError(f"workload.clients must lie in [1, {self.num_requests}], got {self.clients}")
        require_at_least("workload.ramp_s", self.ramp_s, 0)
        if self.ramp_s > 0 and self.clients == 1:
            raise ValueError(f"workload.ramp_s has no effect with one client, got {self.ramp_s}; set it to 0")
        self.think.check("workload.think")
        self.prompt.check("workload.prompt")
        self.output.check("workload.output")

    def requests(self, seed: int) -> Requests:
        n = self.num_requests
        think_s = self.think.sample(n, generator(seed, "think"))
        prompt_tokens = self.prompt.sample(n, generator(seed, "prompt"))
        output_tokens = self.output.sample(n, generator(seed, "output"))
        chains = Chains(np.arange(self.clients, dtype=np.float64) * (self.ramp_s / self.clients))
        for first in range(0, n, self.clients):
            turn = slice(first, first + self.clients)
            clients = np.arange(len(think_s[turn]))
            chains.add(clients, think_s[turn], prompt_tokens[turn], output_tokens[turn])
        columns: dict[str, Any] = chains.columns()[1]
        return Requests(**columns)
