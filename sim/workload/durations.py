"""How long clients wait: one distribution of seconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sim.workload.base import require_at_least, require_positive, require_settings

_NEEDS = {"fixed": ("seconds",), "exponential": ("mean_s",), "lognormal": ("median_s", "sigma")}


@dataclass(kw_only=True, slots=True)
class Durations:
    """Distribution of a time span (think time, patience); settings of the other kinds stay null.

    Attributes:
        kind: fixed, exponential or lognormal (median_s * exp(sigma * normal)).
        seconds: fixed, >= 0.
        mean_s: exponential, > 0.
        median_s, sigma: lognormal, > 0; the mean is median_s * exp(sigma^2 / 2).
    """

    kind: str
    seconds: float | None = None
    mean_s: float | None = None
    median_s: float | None = None
    sigma: float | None = None

    def check(self, prefix: str) -> None:
        """Refuses bad settings; `prefix` is where the distribution stands, such as `workload.think`.

        Raises:
            ValueError: an unknown kind, a missing, idle or out-of-range setting.
        """
        settings = asdict(self)
        require_settings(prefix, "kind", settings.pop("kind"), settings, _NEEDS)
        require_at_least(f"{prefix}.seconds", self.seconds, 0)
        for name in ("mean_s", "median_s", "sigma"):
            require_positive(f"{prefix}.{name}", settings[name])

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Seconds float64 (n,), independent draws; a larger `n` appends and changes none."""
        if self.kind == "fixed":
            assert self.seconds is not None
            return np.full(n, self.seconds)
        if self.kind == "exponential":
            assert self.mean_s is not None
            return self.mean_s * rng.standard_exponential(n)
        assert self.median_s is not None and self.sigma is not None
        drawn: NDArray[np.float64] = self.median_s * np.exp(self.sigma * rng.standard_normal(n))
        return drawn
