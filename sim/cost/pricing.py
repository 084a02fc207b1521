"""Where op times come from: the choice behind `cost=`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

from sim.cost.constants import GENERIC, Calibration, Constants, completed, exchange_over, slowed
from sim.cost.forward import ForwardCost
from sim.cost.kinship import constants_for, described, generic_constants
from sim.cost.routing import Routing
from sim.cost.table import KernelTable, read_kernel_table
from sim.data import read_yaml
from sim.hardware import Gpu, Link
from sim.model import Model

ENGINES = ("vllm", "sglang", "trtllm")


@dataclass(kw_only=True, slots=True)
class CostModel(ABC):
    """A way to price forward passes.

    Attributes:
        kernel_factor: every kernel takes so many times as long as the constants say, though none beats the peak rates:
            what a run of one's own shows (`moesd-sim calibrate run=`).

    Raises:
        ValueError: `kernel_factor` is not a finite number > 0.
    """

    kernel_factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.kernel_factor < math.inf:
            raise ValueError(f"cost.kernel_factor must be > 0 and finite, got {self.kernel_factor}")

    @abstractmethod
    def constants(self, gpu: Gpu, link: Link | None) -> tuple[Constants, str]:
        """The constants for this GPU, `link` between its ranks (None for a single GPU), and where they come from."""

    def table(self) -> KernelTable | None:
        """Measured rows that correct the constants; None for constants alone."""
        return None

    def forward(
        self, model: Model, gpu: Gpu, link: Link, tensor_parallel: int, expert_parallel: bool, routing: Routing,
        data_parallel: int = 1,
    ) -> ForwardCost:  # fmt: skip
        """The price of one model's forward pass on one tensor-parallel group, or on several that share the experts.

        Weights of one byte are multiplied in fp8 where the GPU can, others in bf16.
        """
        constants, _ = self.constants(gpu, link if tensor_parallel * data_parallel > 1 else None)
        if data_parallel > 1:
            constants = replace(constants, exchange=exchange_over(link.kind))
        return ForwardCost(
            model=model,
            gpu=gpu,
            link=link,
            constants=slowed(constants, self.kernel_factor),
            routing=routing,
            tensor_parallel=tensor_parallel,
            data_parallel=data_parallel,
            expert_parallel=expert_parallel and model.is_moe,
            dtype="fp8" if model.weight_bytes == 1.0 and "fp8" in gpu.peak_flops_per_s else "bf16",
            table=self.table(),
        )

    def note(self, gpu: Gpu, link: Link | None) -> str:
        """Where the numbers for this GPU come from and how good they are, in a sentence."""
        note = self.constants(gpu, link)[1]
        return note if self.kernel_factor == 1.0 else f"{note}; all kernels x {self.kernel_factor:.3g}"


@dataclass(kw_only=True, slots=True)
class Fitted(CostModel):
    """A few constants per op family, GPU and engine, fitted to measured kernels.

    Attributes:
        kernels: whose kernels the constants describe; the GPU's nearest kin stands in where it has none.
        kin: the calibration to take instead, `<gpu>_<engine>`; empty for the nearest.
        path: a calibration of one's own (YAML, written by `moesd-sim calibrate`); empty for the bundled ones.

    Raises:
        ValueError: an unknown engine, or `kin` beside `path`.
    """

    kernels: str = "vllm"
    kin: str = ""
    path: str = ""

    def __post_init__(self) -> None:
        CostModel.__post_init__(self)
        if self.kernels not in ENGINES:
            raise ValueError(f"cost.kernels must be one of {', '.join(ENGINES)}, got {self.kernels!r}")
        if self.kin and self.path:
            raise ValueError("cost.kin has no effect beside cost.path; remove one")

    def constants(self, gpu: Gpu, link: Link | None) -> tuple[Constants, str]:
        """Those of `path`, of `kin`, of the GPU, or of its nearest kin."""
        if self.path:
            return _own(Path(self.path), gpu, link)
        return constants_for(gpu, self.kernels, link, self.kin)


@dataclass(kw_only=True, slots=True)
class Table(CostModel):
    """Measured kernels, interpolated; fitted constants between and beyond the measured shapes.

    Attributes:
        path: the table (Parquet) that `moesd-sim calibrate` wrote, its calibration (YAML) beside it.

    Raises:
        ValueError: no path.
    """

    path: str

    def __post_init__(self) -> None:
        CostModel.__post_init__(self)
        if not self.path:
            raise ValueError("cost.path must name a kernel table; write one with moesd-sim calibrate traces=...")

    def constants(self, gpu: Gpu, link: Link | None) -> tuple[Constants, str]:
        """Those the table's rows are measured against."""
        constants, note = _own(Path(self.path).with_suffix(".yaml"), gpu, link)
        return constants, f"measured rows of {self.path}, interpolated; elsewhere {note}"

    def table(self) -> KernelTable:
        """The measured rows."""
        return read_kernel_table(Path(self.path))


@dataclass(kw_only=True, slots=True)
class Analytic(CostModel):
    """FLOPs and bytes with one set of constants for any GPU: no measurement of this GPU is used."""

    def constants(self, gpu: Gpu, link: Link | None) -> tuple[Constants, str]:
        """The same for every GPU."""
        return generic_constants(link)


@dataclass(kw_only=True, slots=True)
class Auto(CostModel):
    """The best that exists: the GPU's own table, else its own or its kin's constants, else those for any GPU.

    Attributes:
        kernels: as for `Fitted`.
        tables: folder of tables of one's own, `<gpu>_<engine>.parquet` with the calibration beside it; empty: none.
    """

    kernels: str = "vllm"
    tables: str = ""

    def __post_init__(self) -> None:
        Fitted(kernels=self.kernels, kernel_factor=self.kernel_factor)
        if self.tables and not Path(self.tables).is_dir():
            raise ValueError(f"cost.tables must be a folder, got {self.tables!r}")

    def constants(self, gpu: Gpu, link: Link | None) -> tuple[Constants, str]:
        """Those of the choice, which the note opens with."""
        chosen = self.chosen(gpu)
        constants, note = chosen.constants(gpu, link)
        return constants, f"{type(chosen).__name__.lower()}: {note}"

    def chosen(self, gpu: Gpu) -> CostModel:
        """The cost model that prices this GPU."""
        table = Path(self.tables) / f"{gpu.name}_{self.kernels}.parquet"
        if self.tables and table.is_file():
            return Table(path=str(table), kernel_factor=self.kernel_factor)
        return Fitted(kernels=self.kernels, kernel_factor=self.kernel_factor)

    def forward(
        self, model: Model, gpu: Gpu, link: Link, tensor_parallel: int, expert_parallel: bool, routing: Routing,
        data_parallel: int = 1,
    ) -> ForwardCost:  # fmt: skip
        """As the choice prices it."""
        return self.chosen(gpu).forward(model, gpu, link, tensor_parallel, expert_parallel, routing, data_parallel)


def _own(path: Path, gpu: Gpu, link: Link | None) -> tuple[Constants, str]:
    if not path.is_file():
        raise FileNotFoundError(f"cost.path: no calibration {path}; write one with moesd-sim calibrate traces=...")
    own = read_yaml(path, Calibration)
    if not own.kin:
        own.kin = GENERIC
    if own.gpu != gpu.name:
        raise ValueError(
            f"cost.path is a calibration of {own.gpu}, but the cluster has {gpu.name}; use cost.kin for kin"
        )
    return described(completed(own, str(path)), gpu, own.engine, link)
