"""What is fitted: how long kernels take against their constants, and host time per step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.config import Experiment

NAMES = ("kernel_factor", "step_host_s")
"""`cost.kernel_factor`, no unit, and `engine.step_host_s`, seconds."""

BOUNDS = {"kernel_factor": (0.5, 3.0), "step_host_s": (0.0, 0.05)}
"""A run that asks for more than this was served by another deployment than the one described."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant.

    Attributes:
        name: of `NAMES`.
        value, before: fitted, and as the experiment had it.
        error: standard error of `value`; None where it was held.
        note: why it was held, or that it lies on a bound; empty else.
    """

    name: str
    value: float
    before: float
    error: float | None = None
    note: str = ""


def constants_of(experiment: Experiment) -> tuple[float, float]:
    """`NAMES` as the experiment has them."""
    return experiment.cost.kernel_factor, experiment.engine.step_host_s


def with_constants(experiment: Experiment, kernel_factor: float, step_host_s: float) -> Experiment:
    """`experiment` with these values of `NAMES`."""
    return replace(
        experiment,
        cost=replace(experiment.cost, kernel_factor=kernel_factor),
        engine=replace(experiment.engine, step_host_s=step_host_s),
    )
