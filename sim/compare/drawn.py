"""A stream for a measured run whose file does not say when requests came: drawn from the rate and lengths it states."""

from __future__ import annotations

import math

import numpy as np

from sim.compare.measured import Measured
from sim.draws import key
from sim.request import Requests


def drawn_requests(measured: Measured, seed: int) -> Requests | None:
    """Arrivals at the stated rate (gamma gaps of the stated burstiness), lengths of the file or their means.

    None where the file states no rate.
    """
    sent, columns = measured.sent, measured.columns
    if sent is None:
        return None
    n = sent.requests if columns is None else len(columns)
    draws = np.random.default_rng(int(key(seed, "arrivals of a measured run")))
    arrival_s = np.zeros(n)
    if math.isfinite(sent.rate_per_s):
        gaps = draws.gamma(sent.burstiness, 1.0 / (sent.rate_per_s * sent.burstiness), n - 1)
        arrival_s[1:] = np.cumsum(gaps)
    prompts = np.full(n, sent.prompt_tokens) if columns is None else columns.prompt_tokens
    outputs = np.full(n, sent.output_tokens) if columns is None else columns.output_tokens
    return Requests(
        arrival_s=arrival_s,
        prompt_tokens=prompts.astype(np.int64),
        output_tokens=outputs.astype(np.int64),
        group=np.zeros(n, dtype=np.int32),
        concurrency=measured.concurrency,
        dropped=measured.dropped,
    )
