"""The file that `moesd-sim calibrate run=` writes and that `calibration=FILE` of every other word reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from sim.calibration.checks import digest
from sim.config import Experiment
from sim.data import read_yaml
from sim.files import write_whole
from sim.metrics.bands import MeasuredStep
from sim.run_fit.constants import BOUNDS, NAMES, with_constants
from sim.run_fit.fit import RunFit


@dataclass(kw_only=True, slots=True)
class RunCalibration:
    """Constants of one deployment, fitted on its own runs.

    Attributes:
        gpu, engine, model, tensor_parallel: the deployment; another GPU or engine version is refused.
        kernel_factor, step_host_s: as in `sim.run_fit.constants`.
        kernel_factor_error, step_host_error_s: standard errors; null where held.
        measured_step: the steps of the first run, with the relative error to expect of them: mean over the fitted
            metrics of the predicted runs, of the fitted ones where none was predicted, at least `LEAST_ERROR`.
        metrics: what was fitted.
        fitted_on, predicted: measured file -> SHA-256 and, for the latter, relative error by metric.
        day: of the fit.

    Raises:
        ValueError: a constant out of its bounds.
    """

    gpu: str
    engine: str
    model: str
    tensor_parallel: int
    kernel_factor: float
    kernel_factor_error: float | None = None
    step_host_s: float
    step_host_error_s: float | None = None
    measured_step: MeasuredStep
    metrics: list[str] = field(default_factory=list)
    fitted_on: dict[str, str] = field(default_factory=dict)
    predicted: dict[str, dict[str, float]] = field(default_factory=dict)
    day: str = ""

    def __post_init__(self) -> None:
        for name in NAMES:
            low, high = BOUNDS[name]
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in {low:g} to {high:g}, got {getattr(self, name)}")

    def applied(self, experiment: Experiment) -> Experiment:
        """`experiment` with the constants.

        Raises:
            ValueError: another GPU or engine version than the one fitted on.
        """
        gpus = sorted({cluster.gpu for cluster in experiment.clusters})
        for name, fitted, given in (
            ("cluster.gpu", self.gpu, ", ".join(gpus)),
            ("engine", self.engine, experiment.engine.name),
        ):
            if fitted != given:
                raise ValueError(
                    f"calibration was fitted on {name} {fitted}, the run has {given}: constants of a run do not carry "
                    "over to another; fit one there, or leave calibration out"
                )
        made = with_constants(experiment, self.kernel_factor, self.step_host_s)
        return replace(made, measured_step=self.measured_step)

    def note(self, model: str, tensor_parallel: int) -> str:
        """Where the constants come from and how good they are, in a sentence."""
        where = f"calibrated on {', '.join(self.fitted_on)} ({self.model}): kernels x {self.kernel_factor:.3g}, "
        where += f"host {self.step_host_s * 1e3:.3g} ms per step, error to expect {self.measured_step.error:.1%}"
        same = (self.model, self.tensor_parallel) == (model, tensor_parallel)
        return where if same else f"{where}; another model or tensor parallelism there, so an extrapolation"


def calibration_of(fit: RunFit, sources: Sequence[str]) -> RunCalibration:
    """The file's content.

    Args:
        fit: what was fitted.
        sources: measured files, in the order of the fit's runs.
    """
    experiment, factor, host = fit.experiment, fit.kernel_factor, fit.step_host_s
    step = experiment.measured_step
    assert step is not None
    own = zip(fit.runs, sources, strict=True)
    fitted_on = {Path(name).name: digest(Path(name.partition("#")[0])) for run, name in own if run.fitted}
    return RunCalibration(
        gpu=experiment.cluster.gpu,
        engine=experiment.engine.name,
        model=experiment.model.name,
        tensor_parallel=experiment.cluster.tensor_parallel,
        kernel_factor=_short(factor.value),
        kernel_factor_error=None if factor.error is None else _short(factor.error),
        step_host_s=_short(host.value),
        step_host_error_s=None if host.error is None else _short(host.error),
        measured_step=MeasuredStep(
            shares={name: _short(share) for name, share in step.shares.items()},
            width=step.width,
            error=_short(step.error),
        ),
        metrics=list(fit.metrics),
        fitted_on=fitted_on,
        predicted={
            Path(run.source).name: {name: _short(run.after[name].error or 0.0) for name in run.after}
            for run in fit.runs
            if not run.fitted
        },
        day=datetime.now(tz=UTC).date().isoformat(),
    )


def write_run_calibration(calibration: RunCalibration, path: Path, command: str) -> None:
    """Write the YAML, whole or not at all; `command` is how to use it."""
    import yaml

    head = "# Constants of one deployment, fitted on its own runs by `moesd-sim calibrate run=`. Use:\n"
    text = head + f"#   {command}\n" + yaml.safe_dump(asdict(calibration), sort_keys=False, width=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda whole: whole.write_text(text, encoding="utf-8"))


def read_run_calibration(path: Path) -> RunCalibration:
    """The file at `path`.

    Raises:
        ValueError: no such file, or not such a calibration.
    """
    if not path.is_file():
        raise ValueError(
            f"calibration must name a file that moesd-sim calibrate run=... wrote, got {str(path)!r}: no such file"
        )
    return read_yaml(path, RunCalibration)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
