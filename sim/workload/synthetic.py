"""Synthetic requests: an arrival process and two length distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.request import Requests
from sim.workload.arrivals import ARRIVALS, arrival_times
from sim.workload.base import Workload, generator, require_at_least, require_positive, require_settings
from sim.workload.curve import RateCurve
from sim.workload.lengths import Lengths


@dataclass(kw_only=True, slots=True)
class Synthetic(Workload):
    """`num_requests` requests with drawn arrivals and lengths; arrivals, prompts and outputs are independent streams.

    The arrival settings are flat fields, so that `workload.rate_per_s=` means the same for every workload; one that the
    chosen arrival does not use is refused.

    Attributes:
        num_requests: >= 1.
        arrival: poisson, gamma, constant, closed_loop or batch (see `sim.workload.arrivals`).
        rate_per_s: mean requests per second, > 0; poisson, gamma, constant.
        cv: coefficient of variation of the gaps, > 0; gamma.
        curve: how the rate goes up and down over time, null for a steady one; poisson, gamma, constant.
        concurrency: requests in flight, 1 to num_requests; closed_loop.
        prompt, output: distributions of the prompt and output tokens.
    """

    num_requests: int
    arrival: str
    rate_per_s: float | None = None
    cv: float | None = None
    curve: RateCurve | None = None
    concurrency: int | None = None
    prompt: Lengths
    output: Lengths

    def __post_init__(self) -> None:
        settings = {name: getattr(self, name) for name in ("rate_per_s", "cv", "curve", "concurrency")}
        require_settings("workload", "arrival", self.arrival, settings, ARRIVALS)
        require_at_least("workload.num_requests", self.num_requests, 1)
        require_positive("workload.rate_per_s", self.rate_per_s)
        require_positive("workload.cv", self.cv)
        if self.concurrency is not None and not 1 <= self.concurrency <= self.num_requests:
            raise ValueError(f"workload.concurrency must lie in [1, {self.num_requests}], got {self.concurrency}")
        if self.curve is not None:
            self.curve.check("workload.curve")
        self.prompt.check("workload.prompt")
        self.output.check("workload.output")

    def requests(self, seed: int) -> Requests:
        n = self.num_requests
        return Requests(
            arrival_s=arrival_times(
                self.arrival,
                n,
                generator(seed, "arrivals"),
                rate_per_s=self.rate_per_s,
                cv=self.cv,
                curve=self.curve,
            ),
            prompt_tokens=self.prompt.sample(n, generator(seed, "prompt")),
            output_tokens=self.output.sample(n, generator(seed, "output")),
            group=np.zeros(n, np.int32),
            concurrency=self.concurrency or 0,
        )
