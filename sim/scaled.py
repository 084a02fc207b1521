"""A deployment whose kernels or host are slower than their constants say, by a factor or by time per step."""

from __future__ import annotations

from dataclasses import fields, replace

from sim.config import Experiment
from sim.cost.host import Engine


def slower_kernels(experiment: Experiment, factor: float) -> Experiment:
    """`experiment` on a GPU whose kernels take `factor` times as long; < 1: shorter, within the peak rates."""
    cost = experiment.cost
    return replace(experiment, cost=replace(cost, kernel_factor=factor * cost.kernel_factor))


def slower_steps(experiment: Experiment, factor: float) -> Experiment:
    """`experiment` with every kernel and every host time times `factor`."""
    engine = experiment.engine
    times = [f.name for f in fields(Engine) if f.name.endswith("_s")]
    slower = replace(engine, **{name: factor * getattr(engine, name) for name in times})
    return slower_kernels(replace(experiment, engine=slower), factor)


def with_host_time(experiment: Experiment, seconds: float) -> Experiment:
    """`experiment` with so many seconds of host time more (or, < 0, fewer, at least none) in every step."""
    step_host_s = max(0.0, experiment.engine.step_host_s + seconds)
    return replace(experiment, engine=replace(experiment.engine, step_host_s=step_host_s))
