"""Fit a deployment's constants on one or two of its measured runs and predict the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.compare.comparison import Statistic
from sim.compare.measured import Measured
from sim.config import Experiment
from sim.cost.errors import family_errors
from sim.metrics.bands import MeasuredStep, family_seconds, shares_of, step_error
from sim.result import Result
from sim.run_fit.constants import BOUNDS, NAMES, Constant, constants_of, with_constants
from sim.run_fit.runs import RunErrors, chosen, simulated, tolerance
from sim.run_fit.steps import Minimum, Vector, jacobian, least_squares, standard_errors

MOST_FITTED = 2
LEAST_ERROR = 0.02
"""What a calibrated simulation leaves at least (`docs/accuracy.md`, vLLM runs, calibrated)."""

_HARDLY = 1.0
"""Standard error of a constant, as a logarithm or in usual steps, that tells nothing."""

LEAST_HOST_S = 1e-4
"""A host time that a preset gives as less is not known to be less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFit:
    """A deployment as its own runs show it.

    Attributes:
        experiment: with the fitted constants, and `measured_step` for narrower bands: what to simulate from here on.
        kernel_factor: every kernel takes so many times as long as its calibration says (`cost.kernel_factor`).
        step_host_s: host time per step (`engine.step_host_s`).
        metrics: what was fitted.
        runs: every run before and after, the fitted ones first.
    """

    experiment: Experiment
    kernel_factor: Constant
    step_host_s: Constant
    metrics: tuple[str, ...]
    runs: tuple[RunErrors, ...]

    @property
    def constants(self) -> tuple[Constant, Constant]:
        """In the order of `NAMES`."""
        return self.kernel_factor, self.step_host_s

    def error(self, *, fitted: bool = False) -> float | None:
        """Mean absolute relative error of the fitted metrics on the predicted (or the fitted) runs; None without."""
        return _mean_error(self.runs, self.metrics, fitted)


def fit_run(experiment: Experiment, runs: Sequence[Measured], fitted: int = 0, metrics: Sequence[str] = ()) -> RunFit:
    """Fit `cost.kernel_factor` and `engine.step_host_s` on the first `fitted` runs, predict the others.

    Every run is simulated request by request on the described deployment, and the logarithms of its metrics are brought
    to the measured ones, each within what a calibrated simulation still leaves (`sim.run_fit.runs.tolerance`).

    One load point can often not tell the two apart. Both are fitted where the runs tell each better than it was known
    before (kernels: the errors of their calibration; host time: as much as the preset has). Otherwise the one that can
    explain less is held, and its note says so.

    Args:
        experiment: the deployment as described; its workload counts only where a file states neither requests nor rate.
        runs: of one deployment, each at a load of its own.
        fitted: how many of them, from the first; 0: all but one, at most two, at least one.
        metrics: of every fitted run, as `tpot_mean`, `ttft_p50`, `itl_p50`, `output_tokens_per_s`; empty: those of
            `DEFAULT_METRICS` that the files state.

    Raises:
        ValueError: no runs, `fitted` out of range, or a metric that a file does not state.
        InfeasibleError: the deployment cannot run.
    """
    count = _count(runs, fitted)
    problem = _Problem(experiment, tuple(runs[:count]), tuple(metrics))
    found, held = _search(problem)
    factor, host = _named(problem, found, held)
    after = with_constants(experiment, factor.value, host.value)
    results = [simulated(after, run) for run in runs]
    errors = tuple(
        RunErrors(run.source, index < count, simulated(experiment, run)[1], seen, notes)
        for index, (run, (_, seen, notes)) in enumerate(zip(runs, results, strict=True))
    )
    known = MeasuredStep(
        shares=_shares(results[0][0]), width=results[0][0].cost.width, error=_expected(errors, problem.names)
    )
    return RunFit(
        experiment=replace(after, measured_step=known),
        kernel_factor=factor,
        step_host_s=host,
        metrics=problem.names,
        runs=errors,
    )


class _Problem:
    """Residuals of the fitted runs over (log kernel factor, host seconds in units of a usual step)."""

    def __init__(self, experiment: Experiment, runs: tuple[Measured, ...], metrics: tuple[str, ...]) -> None:
        self._experiment, self._runs = experiment, runs
        before = [simulated(experiment, run) for run in runs]
        self.before: list[Result] = [result for result, _, _ in before]
        self._chosen = [chosen(metrics, known, run) for run, (_, known, _) in zip(runs, before, strict=True)]
        self.names = tuple(dict.fromkeys(name for names in self._chosen for name in names))
        self.step_s = float(np.mean(self.before[0].step_seconds()))
        self._seen: dict[tuple[float, float], Vector] = {}

    @property
    def start(self) -> Vector:
        """The constants of the experiment."""
        factor, host_s = constants_of(self._experiment)
        return np.array([math.log(factor), host_s / self.step_s])

    @property
    def bounds(self) -> Vector:
        """Lowest and highest, two rows."""
        factor, host = (np.array(BOUNDS[name]) for name in NAMES)
        return np.stack([np.log(factor), host / self.step_s], axis=1)

    def values(self, at: Vector) -> tuple[float, float]:
        """`NAMES` at a point."""
        return math.exp(at[0]), float(at[1]) * self.step_s

    def residuals(self, at: Vector) -> Vector:
        """log(simulated / measured) of every metric of every run, in tolerances."""
        point = (float(at[0]), float(at[1]))
        if point not in self._seen:
            self._seen[point] = self._simulated(at)
        return self._seen[point]

    def _simulated(self, at: Vector) -> Vector:
        candidate = with_constants(self._experiment, *self.values(at))
        found = []
        for run, names in zip(self._runs, self._chosen, strict=True):
            known = simulated(candidate, run)[1]
            found += [_log_ratio(known[name]) / tolerance(name) for name in names]
        return np.array(found)

    def on_bound(self, at: Vector) -> tuple[bool, bool]:
        """Which constants lie on a bound."""
        low, high = self.bounds
        kernels, host = (at <= low) | (at >= high)
        return bool(kernels), bool(host)

    def spread(self, errors: Vector, index: int) -> str:
        """The standard error of a constant, in words."""
        return f"{errors[0]:.0%}" if index == 0 else f"{errors[1] * self.step_s * 1e3:.2g} ms"

    def known(self) -> Vector:
        """Standard deviation of each constant before any run."""
        shares = _shares(self.before[0])
        kernels = {name: share / (1.0 - shares["host"]) for name, share in shares.items() if name != "host"}
        _, host_s = constants_of(self._experiment)
        error = step_error(kernels, family_errors(self.before[0].cost.target))
        return np.array([error, max(host_s, LEAST_HOST_S) / self.step_s])


def _count(runs: Sequence[Measured], fitted: int) -> int:
    if not runs:
        raise ValueError("run must name at least one measured run, got none")
    count = fitted or max(1, min(MOST_FITTED, len(runs) - 1))
    if not 1 <= count <= len(runs):
        raise ValueError(f"fit must lie in 1 to {len(runs)}, the runs given, got {fitted}")
    return count


def _search(problem: _Problem) -> tuple[Minimum, dict[int, str]]:
    """The best constants, and index -> why it was held."""
    start, known = problem.start, problem.known()
    here = problem.residuals(start)
    slope = jacobian(problem.residuals, start, here, [0, 1])
    told = standard_errors(slope, np.zeros_like(here))
    if (told < known).all():
        both = least_squares(problem.residuals, start, [0, 1], problem.bounds)
        told = both.errors
        if (told < known).all() and not any(problem.on_bound(both.at)):
            return both, {}
    effect = np.linalg.norm(slope, axis=0) * known
    free = int(np.argmax(effect))
    spread = f"only to {problem.spread(told, 1 - free)}" if told[1 - free] < _HARDLY else "not at all"
    why = (
        f"held: these runs tell it apart from {NAMES[free]} {spread}, and it explains less "
        f"({effect.min() / effect.max():.0%} as much)"
    )
    return least_squares(problem.residuals, start, [free], problem.bounds), {1 - free: why}


def _named(problem: _Problem, found: Minimum, held: dict[int, str]) -> tuple[Constant, Constant]:
    values, before = problem.values(found.at), problem.values(problem.start)
    free = [index for index in range(len(NAMES)) if index not in held]
    errors = dict(zip(free, found.errors.tolist(), strict=True))
    units, on_bound = (values[0], problem.step_s), problem.on_bound(found.at)
    made = []
    for index, name in enumerate(NAMES):
        note = held.get(index, "")
        if index in free and on_bound[index]:
            low, high = BOUNDS[name]
            note = f"lies on its bound, {low:g} to {high:g}: is this the deployment that was measured?"
        error = errors[index] * units[index] if index in free else None
        made.append(Constant(name, values[index], before[index], error, note))
    return made[0], made[1]


def _shares(result: Result) -> dict[str, float]:
    """Of the op families in the run's time."""
    families = family_seconds(result.recorder.blocks(), result.cost_at)
    return shares_of(families, np.ones(len(next(iter(families.values())))))


def _mean_error(runs: Sequence[RunErrors], metrics: Sequence[str], fitted: bool) -> float | None:
    errors = [
        abs(run.after[name].error or 0.0)
        for run in runs
        if run.fitted == fitted
        for name in metrics
        if name in run.after
    ]
    return float(np.mean(errors)) if errors else None


def _expected(runs: Sequence[RunErrors], metrics: Sequence[str]) -> float:
    judged = _mean_error(runs, metrics, fitted=False)
    return max(LEAST_ERROR, judged if judged is not None else _mean_error(runs, metrics, fitted=True) or 0.0)


def _log_ratio(statistic: Statistic) -> float:
    return math.log(max(statistic.simulated, 1e-9) / statistic.measured)
