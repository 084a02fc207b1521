"""When requests come: arrival times of the synthetic kinds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.workload.curve import RateCurve

# Arrival kind -> the settings of `Synthetic` it needs.
ARRIVALS = {
    "poisson": ("rate_per_s", "curve?"),
    "gamma": ("rate_per_s", "cv", "curve?"),
    "constant": ("rate_per_s", "curve?"),
    "closed_loop": ("concurrency",),
    "batch": (),
}


def arrival_times(
    kind: str,
    n: int,
    rng: np.random.Generator,
    *,
    rate_per_s: float | None,
    cv: float | None,
    curve: RateCurve | None = None,
) -> NDArray[np.float64]:
    """Arrival times float64 (n,) in seconds; the first request arrives at 0, as in a trace.

    poisson: exponential gaps; gamma: gaps with coefficient of variation `cv` (shape 1/cv^2: 1 is Poisson, more is
    bursty); constant: equal gaps; closed_loop and batch: all 0. A larger `n` appends requests and changes none, another
    rate stretches time and nothing else. With a `curve` the rate goes up and down around `rate_per_s`.
    """
    if rate_per_s is None:
        return np.zeros(n)
    if kind == "poisson":
        gaps = rng.standard_exponential(n - 1)
    elif kind == "gamma":
        assert cv is not None
        gaps = rng.standard_gamma(1 / cv**2, n - 1) * cv**2
    else:
        gaps = np.ones(n - 1)
    arrival_s: NDArray[np.float64] = np.concatenate(([0.0], np.cumsum(gaps))) / rate_per_s
    return arrival_s if curve is None else curve.warp(arrival_s)
