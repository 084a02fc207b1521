"""How long prompts and outputs are: one distribution of token counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sim.workload.base import require_at_least, require_positive, require_settings

_NEEDS = {
    "fixed": ("tokens",),
    "uniform": ("min_tokens", "max_tokens"),
    "lognormal": ("median_tokens", "sigma", "max_tokens?"),
    "quantiles": ("probabilities", "quantile_tokens"),
}


@dataclass(kw_only=True, slots=True)
class Lengths:
    """Distribution of a token count, rounded to whole tokens and at least 1.

    One class for all kinds, with the settings of the others left at null: a field of a configuration cannot change its
    class once YAML gave it one, and four numbers do not deserve a group of their own.

    Attributes:
        kind: fixed; uniform (both ends included); lognormal (tokens = median * exp(sigma * normal)); quantiles
            (the inverse distribution function, linear between given points).
        tokens: fixed only, >= 1.
        min_tokens, max_tokens: uniform; lognormal clips at max_tokens where it is set.
        median_tokens, sigma: lognormal; the mean is median_tokens * exp(sigma^2 / 2) before clipping.
        probabilities, quantile_tokens: quantiles, of equal length; probabilities rise from 0 to 1.
    """

    kind: str
    tokens: int | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    median_tokens: float | None = None
    sigma: float | None = None
    probabilities: list[float] | None = None
    quantile_tokens: list[float] | None = None

    def check(self, prefix: str) -> None:
        """Refuses bad settings. The owner calls it, as only the owner knows its `prefix`, such as `workload.prompt`.

        Raises:
            ValueError: an unknown kind, a missing, idle or out-of-range setting.
        """
        settings = asdict(self)
        require_settings(prefix, "kind", settings.pop("kind"), settings, _NEEDS)
        for name in ("tokens", "min_tokens", "max_tokens", "median_tokens"):
            require_at_least(f"{prefix}.{name}", settings[name], 1)
        require_positive(f"{prefix}.sigma", self.sigma)
        if self.min_tokens is not None and self.max_tokens is not None:
            require_at_least(f"{prefix}.max_tokens", self.max_tokens, self.min_tokens)
        if self.probabilities is not None and self.quantile_tokens is not None:
            _check_quantiles(prefix, self.probabilities, self.quantile_tokens)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Token counts int64 (n,), independent draws; a larger `n` appends and changes none."""
        if self.kind == "fixed":
            assert self.tokens is not None
            return np.full(n, self.tokens, np.int64)
        if self.kind == "uniform":
            assert self.min_tokens is not None and self.max_tokens is not None
            drawn = self.min_tokens + np.floor(rng.random(n) * (self.max_tokens - self.min_tokens + 1))
        elif self.kind == "lognormal":
            assert self.median_tokens is not None and self.sigma is not None
            drawn = self.median_tokens * np.exp(self.sigma * rng.standard_normal(n))
            drawn = np.minimum(drawn, 2.0**31 if self.max_tokens is None else self.max_tokens)
        else:
            assert self.probabilities is not None and self.quantile_tokens is not None
            drawn = np.interp(rng.random(n), self.probabilities, self.quantile_tokens)
        whole: NDArray[np.int64] = np.maximum(np.rint(drawn), 1).astype(np.int64)
        return whole


def _check_quantiles(prefix: str, probabilities: list[float], tokens: list[float]) -> None:
    if len(probabilities) != len(tokens) or len(tokens) < 2:
        raise ValueError(
            f"{prefix}.quantile_tokens must have as many entries as probabilities and at least 2, "
            f"got {len(tokens)} and {len(probabilities)}"
        )
    if probabilities[0] != 0 or probabilities[-1] != 1 or not bool(np.all(np.diff(probabilities) > 0)):
        raise ValueError(f"{prefix}.probabilities must rise from 0 to 1, got {probabilities}")
    if not (tokens[0] >= 1 and bool(np.all(np.diff(tokens) >= 0)) and bool(np.isfinite(tokens[-1]))):
        raise ValueError(f"{prefix}.quantile_tokens must be >= 1 and non-decreasing, got {tokens}")
