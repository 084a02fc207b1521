"""The small kernels between the GEMMs, each one fused kernel on a GPU as serving engines have them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeVar

import torch
from torch.nn.functional import rms_norm

from sim.profiling.place import Place

F = TypeVar("F", bound=Callable[..., object])

_ROTARY_BASE = 1e6


def fusing_kernel(place: Place) -> str:
    """Who computes elementwise ops here: inductor fuses them on a GPU, torch runs them one by one on a CPU."""
    return "inductor" if place.is_cuda and find_spec("triton") is not None else "eager"


def fuse(function: F, kernel: str) -> F:
    """`function` as the fused kernel that `fusing_kernel` names, compiled for all shapes at once."""
    return torch.compile(function, dynamic=True) if kernel == "inductor" else function


def add_rms_norm(rows: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Residual addition and RMS norm over the last dimension: (normalised, new residual)."""
    summed = rows + residual
    return rms_norm(summed, weight.shape, weight, 1e-6), summed


def rotary_angles(positions: torch.Tensor, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the rotary embedding, fp32 [*positions, 1, head_dim / 2]."""
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * _ROTARY_BASE ** (-steps / head_dim)
    return angles.cos()[..., None, :], angles.sin()[..., None, :]


def rotate(rows: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of `rows` [batch, width, heads, head_dim], halves as pairs."""
    low, high = rows.float().chunk(2, dim=-1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1).to(rows.dtype)


def store(cache: torch.Tensor, new: torch.Tensor, positions: torch.Tensor) -> None:
    """Write `new` [batch, width, kv_heads, dim] into `cache` [batch, slots, kv_heads, dim] at `positions`."""
    sequences = torch.arange(len(cache), device=cache.device)[:, None]
    cache.index_put_((sequences, positions), new)
