"""A measured run: columns of its requests where they are known, else the statistics that its file states."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sim.metrics.summary import distribution
from sim.request import Requests

Statistics = dict[str, dict[str, float]]
"""Figure -> statistic -> value, with the names and units of `summary.json`."""

CLOCK_S = 1e-6
"""Times of one request that are apart by less are the same: sums of rounded gaps."""

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Requests that succeeded, in order of arrival, n of them.

    Attributes:
        arrival_s: float64 (n,), since the first arrival, >= 0; None where the file does not say.
        prompt_tokens, output_tokens: int64 (n,), >= 1.
        ttft_s, e2e_s: float64 (n,), since arrival, 0 <= ttft <= e2e.
        itl_s: per request the gaps between its emissions, None where unknown.
    """

    arrival_s: Column | None
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    ttft_s: Column
    e2e_s: Column
    itl_s: tuple[Column, ...] | None = None

    def __len__(self) -> int:
        return len(self.ttft_s)

    def check(self, where: str) -> None:
        """Refuse what no run can have shown.

        Raises:
            ValueError: no prompt or output tokens, no time to the first token, an end before it.
        """
        for name, bad, bound in (
            ("prompt_tokens", self.prompt_tokens < 1, ">= 1"),
            ("output_tokens", self.output_tokens < 1, ">= 1"),
            ("ttft_s", self.ttft_s <= 0, "> 0; was the answer streamed?"),
            ("e2e_s", self.e2e_s < self.ttft_s - CLOCK_S, ">= ttft_s"),
        ):
            if bad.any():
                row = int(np.argmax(bad))
                raise ValueError(f"{where}: {name} must be {bound}, got {getattr(self, name)[row]} for request {row}")

    @property
    def tpot_s(self) -> Column:
        """Time per output token after the first, (e2e - ttft) / (n - 1); NaN for a single token."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        tpot: Column = (self.e2e_s - self.ttft_s) / gaps
        return tpot

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """The requests at `rows`, in that order."""
        return Columns(
            arrival_s=None if self.arrival_s is None else self.arrival_s[rows],
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            ttft_s=self.ttft_s[rows],
            e2e_s=self.e2e_s[rows],
            itl_s=None if self.itl_s is None else tuple(self.itl_s[row] for row in rows.tolist()),
        )

    def by_arrival(self) -> Columns:
        """Sorted by arrival, which then counts from the first."""
        if self.arrival_s is None:
            return self
        ordered = self.take(np.argsort(self.arrival_s, kind="stable"))
        assert ordered.arrival_s is not None
        return replace(ordered, arrival_s=ordered.arrival_s - ordered.arrival_s[0])

    def statistics(self) -> Statistics:
        """What `sim.metrics.summary` makes of a simulated run, from the columns alone."""
        figures = {
            "ttft_s": distribution(self.ttft_s),
            "tpot_s": distribution(self.tpot_s),
            "e2e_s": distribution(self.e2e_s),
        }
        if self.itl_s is not None:
            figures["itl_s"] = distribution(np.concatenate(self.itl_s) if self.itl_s else np.zeros(0))
        if self.arrival_s is not None:
            figures["throughput"] = self._throughput(self.arrival_s)
        return {name: values for name, values in figures.items() if values}

    def _throughput(self, arrival_s: Column) -> dict[str, float]:
        makespan_s = float((arrival_s + self.e2e_s).max() - arrival_s.min())
        output = float(self.output_tokens.sum())
        return {
            "requests_per_s": len(self) / makespan_s,
            "output_tokens_per_s": output / makespan_s,
            "total_tokens_per_s": (output + float(self.prompt_tokens.sum())) / makespan_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a file states of an open stream whose requests it does not list, or not with their arrivals.

    Attributes:
        requests: how many succeeded.
        prompt_tokens, output_tokens: mean of each, >= 1.
        rate_per_s: mean arrivals per second, infinite where all were sent at once.
        burstiness: shape of the gamma distribution of the gaps; 1 for a Poisson stream.
    """

    requests: int
    prompt_tokens: int
    output_tokens: int
    rate_per_s: float
    burstiness: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """A run that somebody measured.

    Attributes:
        source: the file.
        tool: what wrote it.
        side: "client" where times include HTTP, tokenisation and the way back, "engine" where they start when the
            request is queued and end when a token is sampled.
        model: as the file names it.
        stated: statistics of the file itself, used where `columns` has none.
        columns: its requests, or None where the file holds statistics only.
        concurrency: requests that a closed-loop client kept in flight, 0 for an open stream.
        sent: what the file states of the stream as a whole, None where it does not.
        dropped: requests of the file that were left out, as (reason, count).
        predicted_by: the simulator, where the file holds a prediction and no measurement.
    """

    source: str
    tool: str
    side: str = "client"
    model: str = ""
    stated: Statistics = field(default_factory=dict)
    columns: Columns | None = None
    concurrency: int = 0
    sent: Sent | None = None
    dropped: tuple[tuple[str, int], ...] = ()
    predicted_by: str = ""

    def statistics(self) -> Statistics:
        """From the columns where they are known, by the definitions of the simulator; else as stated."""
        return self.stated | (self.columns.statistics() if self.columns is not None else {})

    def requests(self) -> Requests | None:
        """The run's own stream, to be simulated; None where the file does not say when requests came.

        Its `source_line` is the row of `columns`, so that a request is found again when others are left out.
        """
        columns = self.columns
        if columns is None or (columns.arrival_s is None and not self.concurrency):
            return None
        n = len(columns)
        arrival_s = columns.arrival_s if columns.arrival_s is not None and not self.concurrency else np.zeros(n)
        return Requests(
            arrival_s=arrival_s,
            prompt_tokens=columns.prompt_tokens,
            output_tokens=columns.output_tokens,
            group=np.zeros(n, dtype=np.int32),
            concurrency=self.concurrency,
            dropped=self.dropped,
            source=self.source,
            source_line=np.arange(n, dtype=np.int64),
        )
