"""ServeGen: requests drawn from published per-client statistics instead of replayed from a log.

Source: Xiang et al., "ServeGen" (2025). The file holds one JSON object per client:
    client   its number
    trace    list of [window start s, requests/s, CV of gaps, "Gamma" or "Weibull", shape, scale], windows of 600 s
    dataset  window start s -> {"input_tokens": {value: probability}, "output_tokens": {value: probability}}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.request import Requests
from sim.workload.base import generator
from sim.workload.client import WINDOW_S, Client, Window, read_client
from sim.workload.reading import RowError, json_records
from sim.workload.traces import Trace


class Draw(NamedTuple):
    """Requests of one client in one window, or of many: columns (n,); `line` is where the file has the client."""

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    client: NDArray[np.int64]
    line: NDArray[np.int64]


@dataclass(kw_only=True, slots=True)
class ServeGen(Trace):
    """Requests of all clients, each a group of its own.

    Per window a client sends rate * 600 s requests; their gaps are drawn from the window's law with its shape and are
    rescaled to fill the window, as upstream does: the published scale has no effect. Lengths come from the histograms
    of the window, or of the client's nearest window that has any; prompt and output are drawn independently, as only
    their margins are published, and counts of 0 tokens are left out. What is drawn for a window depends on seed, client
    and window alone: another selection shows the same requests. A bad row is here a bad client.
    """

    def requests(self, seed: int) -> Requests:
        dropped: Counter[str] = Counter()
        draws: list[Draw] = []
        for line, record in json_records(self.path):
            try:
                client = read_client(record)
            except RowError as bad:
                self.count_or_refuse(line, bad, dropped)
                continue
            draws.extend(self._draws(client, line, seed))
        self.require_some(sum(len(draw.arrival_s) for draw in draws), dropped)
        arrival_s, prompt_tokens, output_tokens, number, line_of = (
            np.concatenate(column) for column in zip(*draws, strict=True)
        )
        order = np.argsort(arrival_s, kind="stable")[: self.head]
        numbers, group = np.unique(number[order], return_inverse=True)
        return Requests(
            arrival_s=self.paced(arrival_s[order] - self.window_start_s),
            prompt_tokens=prompt_tokens[order],
            output_tokens=output_tokens[order],
            group=group.astype(np.int32),
            groups=tuple(f"client-{number}" for number in numbers),
            dropped=tuple(dropped.items()),
            source=self.path,
            source_line=line_of[order],
        )

    def _draws(self, client: Client, line: int, seed: int) -> Iterator[Draw]:
        """What the client's windows send inside the selection, window by window."""
        end_s = np.inf if self.window_end_s is None else self.window_end_s
        for window in client.windows:
            if window.start_s + WINDOW_S <= self.window_start_s or window.start_s >= end_s:
                continue
            address = (client.number, int(window.start_s))
            arrival_s = window.start_s + _fill(window, generator(seed, "arrivals", *address))
            prompt_tokens = client.prompt_at(window.start_s).sample(window.n, generator(seed, "prompt", *address))
            output_tokens = client.output_at(window.start_s).sample(window.n, generator(seed, "output", *address))
            keep = (arrival_s >= self.window_start_s) & (arrival_s < end_s)
            n = int(np.count_nonzero(keep))
            yield Draw(
                arrival_s[keep], prompt_tokens[keep], output_tokens[keep], np.full(n, client.number), np.full(n, line)
            )


def _fill(window: Window, rng: np.random.Generator) -> NDArray[np.float64]:
    """Arrival times (n,) in [0, WINDOW_S]: n + 1 gaps that fill the window; with gamma shape 1 a Poisson process."""
    size = window.n + 1
    gaps = rng.standard_gamma(window.shape, size) if window.law == "Gamma" else rng.weibull(window.shape, size)
    until = np.cumsum(gaps / gaps.max())
    scaled: NDArray[np.float64] = until[:-1] * (WINDOW_S / until[-1])
    return scaled
