"""A Result against a measured run: the error of every statistic, and the windows of time it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sim.compare.measured import Columns, Measured
from sim.compare.windows import Window, windows_of
from sim.metrics.summary import Times
from sim.result import Result

WINDOWS = 20
FIGURES = {"throughput": "throughput", "ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E"}
SIDES = {
    "client": "measured at the client: HTTP, tokenisation and the way back are in its times",
    "engine": "measured in the engine: times start when a request is queued",
}


@dataclass(frozen=True, slots=True)
class Statistic:
    """One figure on both sides, in the unit that its name ends in.

    Attributes:
        figure, statistic: as in `summary.json`.
        measured, simulated: its values.
    """

    figure: str
    statistic: str
    measured: float
    simulated: float

    @property
    def error(self) -> float | None:
        """simulated / measured - 1; None where nothing was measured but zero."""
        return self.simulated / self.measured - 1 if self.measured else None

    def as_dict(self) -> dict[str, Any]:
        """Plain fields, with `error`."""
        return asdict(self) | {"error": self.error}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs, and where.

    Attributes:
        source, tool, label: the measured file, what wrote it, the simulated experiment.
        statistics: every one that both sides have.
        windows: of time, in order; empty where the requests are not the same or their arrivals are unknown.
        notes: what a reader must know to judge the errors.
    """

    source: str
    tool: str
    label: str
    statistics: tuple[Statistic, ...]
    windows: tuple[Window, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain fields, for JSON."""
        return {
            "source": self.source,
            "tool": self.tool,
            "label": self.label,
            "statistics": [statistic.as_dict() for statistic in self.statistics],
            "windows": [asdict(window) for window in self.windows],
            "notes": list(self.notes),
        }

    def worst(self, figure: str, most: int) -> list[Window]:
        """The windows with the largest shares of the error of `figure` ("ttft" or "tpot"), largest first."""
        return sorted(self.windows, key=lambda window: -abs(getattr(window, f"{figure}_share")))[:most]


def compare(result: Result, measured: Measured, windows: int = WINDOWS) -> Comparison:
    """Hold a simulated run against a measured one.

    Where the run simulated the measured requests (`Measured.requests`), both sides count the same ones, and windows
    tell where the error comes from. Otherwise only the statistics are compared.

    Raises:
        ValueError: windows < 1.
    """
    if windows < 1:
        raise ValueError(f"windows must be >= 1, got {windows}")
    paired = _paired(result, measured)
    seen, found = measured.statistics(), result.summary()
    found_windows: list[Window] = []
    if paired is not None:
        seen = measured.stated | paired.statistics()
        if paired.arrival_s is not None:
            found_windows = windows_of(result, paired, simulated_columns(result), windows)
    statistics = [
        Statistic(figure, name, value, float(found[figure][name]))
        for figure in FIGURES
        for name, value in seen.get(figure, {}).items()
        if name in found.get(figure, {})
    ]
    return Comparison(
        source=measured.source,
        tool=measured.tool,
        label=result.label,
        statistics=tuple(statistics),
        windows=tuple(found_windows),
        notes=tuple(_notes(result, measured, paired)),
    )


def simulated_columns(result: Result) -> Columns:
    """The simulated requests in the form of measured ones, arrivals since the first."""
    times, requests = Times.of(result.recorder), result.requests
    return Columns(
        arrival_s=times.arrival_s - times.arrival_s.min(),
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        ttft_s=times.ttft_s,
        e2e_s=times.e2e_s,
    )


def _paired(result: Result, measured: Measured) -> Columns | None:
    """The measured requests that were simulated, row by row; None where the run simulated something else."""
    requests = result.requests
    if measured.columns is None or requests.source_line is None or requests.source != measured.source:
        return None
    columns = measured.columns.take(requests.source_line).by_arrival()
    same = np.array_equal(columns.prompt_tokens, requests.prompt_tokens)
    return columns if same and np.array_equal(columns.output_tokens, requests.output_tokens) else None


def _notes(result: Result, measured: Measured, paired: Columns | None) -> list[str]:
    notes = [f"{SIDES[measured.side]}; simulated times are the engine's, from queueing to sampling"]
    if measured.predicted_by:
        notes.append(f"the file holds a prediction, not a measurement: {measured.predicted_by}")
    if measured.model:
        notes.append(f"measured model {measured.model}, simulated {result.experiment.model.name}")
    if paired is None:
        notes.append("the file does not hold the simulated requests: the workload is the experiment's own, "
                     "and no window can be told")  # fmt: skip
    elif measured.concurrency:
        notes.append(f"closed loop of {measured.concurrency} requests: each side sends the next at its own pace, and a "
                     "request may arrive in another window than it did when measured")  # fmt: skip
    notes += [f"{count} requests left out: {reason}" for reason, count in result.requests.dropped or measured.dropped]
    return notes
