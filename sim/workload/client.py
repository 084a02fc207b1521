"""One client of a ServeGen file: how often it sends, how bursty, how long its prompts and outputs are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.workload.reading import Record, RowError, whole

WINDOW_S = 600.0


class Window(NamedTuple):
    """One client over WINDOW_S seconds: `n` requests, the law of their gaps and its shape parameter."""

    start_s: float
    n: int
    law: str
    shape: float


class Histogram(NamedTuple):
    """Token counts (k,), >= 1, and their cumulated weights (k,)."""

    tokens: NDArray[np.int64]
    cumulated: NDArray[np.float64]

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Token counts int64 (n,), independent draws."""
        place = np.searchsorted(self.cumulated, rng.random(n) * self.cumulated[-1], side="right")
        drawn: NDArray[np.int64] = self.tokens[np.minimum(place, len(self.tokens) - 1)]
        return drawn


class Client(NamedTuple):
    """A client's windows, the starts of its length windows, and its histograms by start, without the empty ones."""

    number: int
    windows: list[Window]
    starts_s: list[float]
    prompt: dict[float, Histogram]
    output: dict[float, Histogram]

    def prompt_at(self, at_s: float) -> Histogram:
        """Prompt tokens at `at_s`."""
        return self.prompt[self._nearest(at_s, self.prompt)]

    def output_at(self, at_s: float) -> Histogram:
        """Output tokens at `at_s`."""
        return self.output[self._nearest(at_s, self.output)]

    def _nearest(self, at_s: float, filled: dict[float, Histogram]) -> float:
        """Start of the length window that holds `at_s`, or of the nearest filled one (the earlier of two)."""
        held_s = max((start_s for start_s in self.starts_s if start_s <= at_s), default=at_s)
        return min(filled, key=lambda start_s: (abs(start_s - held_s), start_s))


def read_client(record: Record | RowError) -> Client:
    """The client in `record`.

    Raises:
        RowError: the record is not a client's, or none of its windows says how long prompts or outputs are.
    """
    if isinstance(record, RowError):
        raise record
    dataset = record.get("dataset")
    trace = record.get("trace")
    if not isinstance(dataset, dict) or not isinstance(trace, list):
        raise RowError("must have trace (a list) and dataset (an object)", sorted(record))
    prompt = _histograms(dataset, "input_tokens")
    output = _histograms(dataset, "output_tokens")
    starts_s = [float(start) for start in dataset]
    return Client(whole(record, "client"), [_window(entry) for entry in trace], starts_s, prompt, output)


def _window(entry: Any) -> Window:
    try:
        start_s, rate_per_s, _, law, shape, _ = entry
        good = 0 <= start_s < np.inf and 0 <= rate_per_s < np.inf and law in {"Gamma", "Weibull"} and 0 < shape < np.inf
    except (TypeError, ValueError):
        good = False
    if not good:
        raise RowError("trace must hold [start s, rate/s, CV, Gamma or Weibull, shape > 0, scale]", entry)
    return Window(float(start_s), round(rate_per_s * WINDOW_S), law, float(shape))


def _histograms(dataset: dict[str, Any], name: str) -> dict[float, Histogram]:
    """The histograms `name` by start of their window, without the empty ones; one at least must be left."""
    found = {}
    for start, window in dataset.items():
        try:
            weights = {int(tokens): float(weight) for tokens, weight in window[name].items()}
            good = float(start) >= 0 and all(0 <= n < 2**31 and 0 <= p < np.inf for n, p in weights.items())
        except (TypeError, ValueError, KeyError, AttributeError):
            good = False
        if not good:
            raise RowError(f"dataset must map whole numbers of {name} to probabilities", f"window {start}")
        kept = [n for n, p in weights.items() if n > 0 and p > 0]
        if kept:
            found[float(start)] = Histogram(np.array(kept, np.int64), np.cumsum([weights[n] for n in kept]))
    if not found:
        raise RowError(f"dataset must have a window with {name}")
    return found
