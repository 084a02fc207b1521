"""A deployment whose kernels, or all of its steps, are slower than their constants say, by a factor."""

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
