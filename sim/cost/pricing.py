"""Where op times come from: the choice behind `cost=`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from sim.cost.constants import constants_for
from sim.cost.forward import ForwardCost
from sim.cost.routing import Routing
from sim.hardware import Gpu, Link
from sim.model import Model


@dataclass(kw_only=True, slots=True)
class CostModel(ABC):
    """A way to price forward passes."""

    @abstractmethod
    def forward(
        self, model: Model, gpu: Gpu, link: Link, tensor_parallel: int, expert_parallel: bool, routing: Routing
    ) -> ForwardCost:
        """The price of one model's forward pass on one tensor-parallel group."""

    @abstractmethod
    def note(self, gpu: Gpu, link: Link | None) -> str:
        """Where the numbers for this GPU come from and how good they are, in a sentence."""


@dataclass(kw_only=True, slots=True)
class Analytic(CostModel):
    """Op by op from FLOPs, bytes and a few constants per GPU and engine.

    Attributes:
        kernels: whose kernels the constants describe (vllm, sglang); the GPU's nearest kin stands in where it has none.
    """

    kernels: str = "vllm"

    def forward(
        self, model: Model, gpu: Gpu, link: Link, tensor_parallel: int, expert_parallel: bool, routing: Routing
    ) -> ForwardCost:
        """A ForwardCost with the constants of the GPU or its kin; the dtype follows the weights."""
        constants, _ = constants_for(gpu, self.kernels, link if tensor_parallel > 1 else None)
        return ForwardCost(
            model=model,
            gpu=gpu,
            link=link,
            constants=constants,
            routing=routing,
            tensor_parallel=tensor_parallel,
            expert_parallel=expert_parallel and model.is_moe,
        )

    def note(self, gpu: Gpu, link: Link | None) -> str:
        """Names the calibration in use; `link` is that between the ranks, None for a single GPU."""
        return constants_for(gpu, self.kernels, link)[1]
