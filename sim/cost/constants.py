"""The measured constants of one GPU under one engine, a YAML of `hardware_specs/calibration/` each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sim.cost.shape import Seconds
from sim.cost.work import Peaks, Work, pnorm
from sim.data import data_dir, names_in, read_named
from sim.hardware import Gpu, Link, read_gpu


@dataclass(kw_only=True, slots=True)
class Efficiency:
    """How close one op family comes to the roofline: t = fixed_s + pnorm(flops / (e_c peak), bytes / (e_m bandwidth)).

    Attributes:
        memory_efficiency, compute_efficiency: e_m and e_c, in (0, 1], so that no price beats the hard bound.
        fixed_s: seconds of one call that has any work (in-graph launches, ramp-up, small kernels).
        exponent: p of the norm, >= 1; `.inf` for a sharp roofline.
        error: mean absolute relative error against the measurements; null where the constants are assumed.
        source: the measurements, or the reason for the assumption.
    """

    memory_efficiency: float
    compute_efficiency: float
    fixed_s: float
    exponent: float = math.inf
    error: float | None = None
    source: str

    def __post_init__(self) -> None:
        for name in ("memory_efficiency", "compute_efficiency"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1] (hard bound), got {getattr(self, name)}")
        if not self.fixed_s >= 0:
            raise ValueError(f"fixed_s must be >= 0, got {self.fixed_s}")
        if not self.exponent >= 1:
            raise ValueError(f"exponent must be >= 1 (.inf: sharp roofline), got {self.exponent}")

    @property
    def measured(self) -> bool:
        """Whether measurements stand behind it."""
        return self.error is not None

    def seconds(self, work: Work, peaks: Peaks, calls: int = 1) -> Seconds:
        """Seconds of `calls` calls that do `work` together; 0 where there is no work."""
        compute_s = work.flops / (self.compute_efficiency * peaks.flops_per_s)
        memory_s = work.bytes / (self.memory_efficiency * peaks.bytes_per_s)
        fixed_s = calls * self.fixed_s * (np.maximum(compute_s, memory_s) > 0)
        seconds: Seconds = fixed_s + pnorm(compute_s, memory_s, self.exponent)
        return seconds


@dataclass(kw_only=True, slots=True)
class ExpertEfficiency(Efficiency):
    """Adds `row_block`: rows of a tile of the grouped GEMM, half of which are empty per active expert on average."""

    row_block: int

    def __post_init__(self) -> None:
        Efficiency.__post_init__(self)
        if self.row_block < 0:
            raise ValueError(f"row_block must be >= 0 (0: no padding), got {self.row_block}")


@dataclass(kw_only=True, slots=True)
class DecodeEfficiency(Efficiency):
    """Adds `wave_s`, seconds per wave of (sequence, KV head) pairs over the SMs, and the query rows of a tile."""

    wave_s: float
    tile_rows: int = 64

    def __post_init__(self) -> None:
        Efficiency.__post_init__(self)
        if not self.wave_s >= 0:
            raise ValueError(f"wave_s must be >= 0, got {self.wave_s}")
        if self.tile_rows < 1:
            raise ValueError(f"tile_rows must be >= 1, got {self.tile_rows}")


@dataclass(kw_only=True, slots=True)
class AllReduce:
    """A two-parameter line per GPU count: t = latency_s + 2 (n - 1) / n * bytes / (link_efficiency * link bandwidth).

    Attributes:
        link_kind: the kind of link it was measured over.
        latency_s: GPU count -> seconds of a tiny message.
        link_efficiency: GPU count -> bus bandwidth over the link's peak in one direction.
        error, source: as for Efficiency.
    """

    link_kind: str
    latency_s: dict[int, float]
    link_efficiency: dict[int, float]
    error: float | None = None
    source: str

    def __post_init__(self) -> None:
        if not self.latency_s or sorted(self.latency_s) != sorted(self.link_efficiency):
            raise ValueError("allreduce: latency_s and link_efficiency must hold the same GPU counts, at least one")
        if min(self.latency_s.values()) < 0 or not all(0 < value <= 1.1 for value in self.link_efficiency.values()):
            raise ValueError("allreduce: latency_s must be >= 0 and link_efficiency in (0, 1.1]")


@dataclass(kw_only=True, slots=True)
class Constants:
    """All families of one GPU and engine; read from YAML, never changed."""

    gpu: str
    architecture: str
    engine: str
    dense: Efficiency
    experts: ExpertEfficiency
    attention_prefill: Efficiency
    attention_decode: DecodeEfficiency
    elementwise: Efficiency
    sampling: Efficiency
    allreduce: AllReduce


def calibrated() -> list[Constants]:
    """Every file of `hardware_specs/calibration/`, in order of name."""
    folder = data_dir("hardware_specs") / "calibration"
    return [read_named(folder, name, Constants, "cost.constants") for name in names_in(folder)]


def constants_for(gpu: Gpu, engine: str, link: Link | None = None) -> tuple[Constants, str]:
    """The constants of `gpu` under `engine`, or of its nearest calibrated kin, and a note that says which and how good.

    Nearest is: the same GPU, the same architecture, else Hopper (an extrapolation, and the note says so); then the same
    engine, then the nearest memory bandwidth.

    Args:
        gpu: the GPU to price.
        engine: vllm or sglang.
        link: between its ranks; all-reduce constants come from a GPU with this kind of link where one was measured.
    """
    known = calibrated()
    architectures = {constants.architecture for constants in known}
    family = gpu.architecture if gpu.architecture in architectures else "hopper"

    def distance(constants: Constants) -> tuple[bool, bool, bool, float]:
        theirs = read_gpu(constants.gpu).memory_bandwidth_bytes_per_s
        apart = abs(math.log(theirs / gpu.memory_bandwidth_bytes_per_s))
        return (constants.gpu != gpu.name, constants.architecture != family, constants.engine != engine, apart)

    kin = min(known, key=distance)
    note = _note(gpu, engine, kin)
    if link is None or link.kind == kin.allreduce.link_kind:
        return kin, note
    same_kind = [constants for constants in known if constants.allreduce.link_kind == link.kind]
    if not same_kind:
        return kin, f"{note}; all-reduce over {link.kind} was never measured, ring hops added to that over nvlink"
    measured = min(same_kind, key=distance)
    return replace(kin, allreduce=measured.allreduce), f"{note}; all-reduce over {link.kind} as on {measured.gpu}"


def _note(gpu: Gpu, engine: str, kin: Constants) -> str:
    families = {"experts": kin.experts, "dense GEMM": kin.dense, "decode attention": kin.attention_decode}
    errors = ", ".join(f"{name} {part.error:.0%}" for name, part in families.items() if part.error is not None)
    where = f"constants of {kin.gpu} under {kin.engine} (kernel errors there: {errors})"
    if kin.gpu == gpu.name:
        return where if kin.engine == engine else f"{where}; {engine} was not measured on this GPU"
    reason = f"{gpu.name} under {engine} is not calibrated"
    if kin.architecture == gpu.architecture:
        return f"{where}; {reason}, taken as the nearest of its architecture {gpu.architecture}"
    return f"extrapolation: {where}; {reason}, and no GPU of its architecture {gpu.architecture} is"
