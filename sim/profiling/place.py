"""Where a case runs: the device, the data type of its tensors, and the names both bear in a kernel trace."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from sim.data import data_dir, names_in

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Data types that can be timed, by their names in a kernel trace."""

_BOARDS = {"sxm", "pcie", "nvl"}
_FILLERS = {"nvidia", "geforce", "amd", "instinct"}


@dataclass(frozen=True, slots=True)
class Place:
    """A device and the data type of weights and activations on it."""

    device: torch.device
    dtype: torch.dtype
    gpu: str
    dtype_name: str

    @property
    def is_cuda(self) -> bool:
        """CUDA events, CUDA graphs and an L2 to flush are there."""
        return str(self.device.type) == "cuda"

    @property
    def element_bytes(self) -> int:
        """Bytes of one weight or activation."""
        return int(self.dtype.itemsize)

    def memory_bytes(self) -> float:
        """Memory of the device; infinite on a CPU, where what fits is the user's business."""
        return float(torch.cuda.get_device_properties(self.device).total_memory) if self.is_cuda else float("inf")

    def randn(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        """Normal values of deviation `scale`: zeros would run faster than real data on a GPU that saves power."""
        return torch.empty(shape, device=self.device, dtype=self.dtype).normal_(std=scale)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Uniform int64 values in [0, high)."""
        return torch.randint(high, shape, device=self.device)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)


def find_place(device: str, dtype: str, gpu: str = "") -> Place:
    """The place that the command line names.

    Args:
        device: auto (the GPU where there is one), cpu or cuda.
        dtype: one of `DTYPES`.
        gpu: name in the kernel trace; default: the file of `hardware_specs/gpu/` that fits the device's own name.

    Raises:
        ValueError: a name that is not known, or no GPU where one is asked for.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise ValueError(f"device must be one of auto, cpu, cuda, got {device!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    present = torch.cuda.is_available()
    if device == "cuda" and not present:
        raise ValueError("device must be auto or cpu here, got 'cuda': torch sees no GPU")
    chosen = torch.device("cuda" if device != "cpu" and present else "cpu")
    found = gpu or (gpu_name(torch.cuda.get_device_name(chosen)) if chosen.type == "cuda" else "cpu")
    return Place(chosen, DTYPES[dtype], found, dtype)


def gpu_name(device_name: str) -> str:
    """The file of `hardware_specs/gpu/` that the driver's name means; the name itself, in lower case, if none does.

    "NVIDIA H100 80GB HBM3" is h100_sxm: names without PCIe or NVL are SXM boards where a GPU comes as one.
    """
    words = re.findall(r"[a-z0-9]+", re.sub(r"sxm\d", "sxm", device_name.lower()))
    said = set(words) - _FILLERS
    if "rtx" in said:
        said |= {f"rtx{word}" for word in words}
    if not said & _BOARDS:
        said.add("sxm")
    fits = [name for name in names_in(data_dir("hardware_specs") / "gpu") if set(name.split("_")) <= said]
    return max(fits, key=lambda name: name.count("_"), default="_".join(words))
