"""Measured runs as figures to fit: each run simulated on the described deployment, statistic by statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sim.compare.comparison import Statistic, compare
from sim.compare.drawn import drawn_requests
from sim.compare.measured import Measured
from sim.config import Experiment
from sim.result import Result
from sim.run import simulate

DEFAULT_METRICS = ("itl_p50", "tpot_mean", "ttft_p50")
"""Steps of pure decoding, decoding beside prompts, prompts: what tells kernels from host time."""

TOLERANCE = {"ttft": 0.05}
"""What a calibrated simulation still leaves of a figure, relative (`docs/accuracy.md`, vLLM runs, calibrated)."""

USUAL_TOLERANCE = 0.02
TAILS = ("p90", "p99")
TAIL_TOLERANCE = 2.0
"""Times the tolerance: fewer requests, and which ones is chance."""


@dataclass(frozen=True, slots=True)
class RunErrors:
    """A measured run against simulations of it.

    Attributes:
        source: the file.
        fitted: whether the constants were fitted on it; else it was predicted.
        before, after: every statistic that both sides have, by metric, with the experiment's constants and the fitted.
        notes: what a reader must know.
    """

    source: str
    fitted: bool
    before: Mapping[str, Statistic]
    after: Mapping[str, Statistic]
    notes: tuple[str, ...]


def metric(statistic: Statistic) -> str:
    """Its name in `metrics=`: `tpot_mean`, `ttft_p50`, `output_tokens_per_s`."""
    if statistic.figure == "throughput":
        return statistic.statistic
    return f"{statistic.figure.removesuffix('_s')}_{statistic.statistic}"


def tolerance(name: str) -> float:
    """Relative error of a metric that the fit does not chase."""
    figure, _, statistic = name.partition("_")
    return TOLERANCE.get(figure, USUAL_TOLERANCE) * (TAIL_TOLERANCE if statistic in TAILS else 1.0)


def simulated(experiment: Experiment, measured: Measured) -> tuple[Result, dict[str, Statistic], tuple[str, ...]]:
    """The run's requests on the experiment's deployment: result, statistics by metric, notes.

    Without requests in the file they are drawn from what it states; where it states nothing, the experiment's own
    workload runs.
    """
    requests = measured.requests()
    drawn = drawn_requests(measured, experiment.seed) if requests is None else None
    result = simulate(replace(experiment, keep_steps=False), requests if drawn is None else drawn)
    found = compare(result, measured, windows=1)
    notes = [note for note in found.notes if not note.startswith("the file does not hold")]
    if drawn is not None:
        notes.append(_drawn_note(measured, len(drawn)))
    elif requests is None:
        notes.append(f"{measured.source} states no rate: the requests are the configuration's workload")
    return result, {metric(statistic): statistic for statistic in found.statistics}, tuple(notes)


def chosen(names: Sequence[str], known: Mapping[str, Statistic], measured: Measured) -> tuple[str, ...]:
    """The metrics to fit on a run: those named, else the default ones.

    Of a run whose lengths are not known, mean TPOT alone: requests of one length each run in waves, which moves TTFT
    and the gaps far more than step times do.

    Raises:
        ValueError: one that the run does not have, or none of the default ones.
    """
    usable = [name for name, statistic in known.items() if statistic.measured > 0]
    missing = [name for name in names if name not in usable]
    if missing:
        raise ValueError(
            f"metrics must be among {', '.join(usable)}, which {measured.source} states, got {', '.join(missing)}"
        )
    default = ("tpot_mean",) if _of_mean_lengths(measured) else DEFAULT_METRICS
    found = tuple(names) or tuple(name for name in default if name in usable)
    if not found:
        raise ValueError(
            f"{measured.source} states none of {', '.join(default)}; choose by metrics= from {', '.join(usable)}"
        )
    return found


def _of_mean_lengths(measured: Measured) -> bool:
    return measured.columns is None and measured.requests() is None and measured.sent is not None


def _drawn_note(measured: Measured, count: int) -> str:
    lengths = "all of the mean lengths" if _of_mean_lengths(measured) else "of the lengths in the file"
    return (
        f"{measured.source} does not say when requests came: {count} are drawn at its rate, {lengths}; "
        "--save-detailed (vLLM since 2026: with start_times) tells more"
    )
