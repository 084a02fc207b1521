"""A deployment whose GPU and host are slower than the constants say, by a factor and by host time per step."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from sim.config import Experiment
from sim.cost.constants import Constants
from sim.cost.forward import ForwardCost
from sim.cost.host import Engine
from sim.cost.pricing import CostModel
from sim.cost.routing import Routing
from sim.cost.shape import Count, Seconds, StepShape
from sim.hardware import Gpu, Link
from sim.model import Model


@dataclass(kw_only=True, slots=True)
class Scaled(CostModel):
    """Every kernel takes `factor` times as long as `base` says.

    Raises:
        ValueError: factor <= 0.
    """

    base: CostModel
    factor: float

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"cost.factor must be > 0, got {self.factor}")

    def constants(self, gpu: Gpu, link: Link | None) -> tuple[Constants, str]:
        """Those of `base`, and a note that names the factor."""
        constants, note = self.base.constants(gpu, link)
        return constants, f"{note}; kernels x {self.factor:.3f}"

    def forward(
        self, model: Model, gpu: Gpu, link: Link, tensor_parallel: int, expert_parallel: bool, routing: Routing
    ) -> ForwardCost:
        """As `base` prices it, times `factor`."""
        forward = self.base.forward(model, gpu, link, tensor_parallel, expert_parallel, routing)
        scale = self.factor * (forward.scale if isinstance(forward, ScaledForward) else 1.0)
        inner = {field.name: getattr(forward, field.name) for field in fields(ForwardCost)}
        return ScaledForward(**inner, scale=scale)


@dataclass(frozen=True, kw_only=True)
class ScaledForward(ForwardCost):
    """A forward pass whose families all take `scale` times as long."""

    scale: float = 1.0

    def tokenwise(self, shape: StepShape, padded_tokens: Count | None = None) -> dict[str, Seconds]:
        """As in ForwardCost, times `scale`."""
        return {name: self.scale * seconds for name, seconds in super().tokenwise(shape, padded_tokens).items()}

    def prefill_attention_s(self, shape: StepShape) -> Seconds:
        """As in ForwardCost, times `scale`."""
        return self.scale * super().prefill_attention_s(shape)

    def decode_attention_s(self, shape: StepShape) -> Seconds:
        """As in ForwardCost, times `scale`."""
        return self.scale * super().decode_attention_s(shape)

    def fusion_s(self, tokens: Count) -> Seconds:
        """As in ForwardCost, times `scale`."""
        return self.scale * super().fusion_s(tokens)


def with_slower_kernels(experiment: Experiment, factor: float) -> Experiment:
    """`experiment` on a GPU whose kernels take `factor` times as long."""
    return replace(experiment, cost=Scaled(base=experiment.cost, factor=factor))


def with_slower_steps(experiment: Experiment, factor: float) -> Experiment:
    """`experiment` with every kernel and every host time times `factor`."""
    engine = experiment.engine
    times = [f.name for f in fields(Engine) if f.name.endswith("_s")]
    slower = replace(engine, **{name: factor * getattr(engine, name) for name in times})
    return with_slower_kernels(replace(experiment, engine=slower), factor)


def with_host_time(experiment: Experiment, seconds: float) -> Experiment:
    """`experiment` with so many seconds of host time more (or, < 0, fewer) in every step."""
    step_host_s = max(0.0, experiment.engine.step_host_s + seconds)
    return replace(experiment, engine=replace(experiment.engine, step_host_s=step_host_s))
