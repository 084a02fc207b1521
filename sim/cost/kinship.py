"""Which constants a GPU is priced with: its own, those of its nearest calibrated kin, or those of any GPU."""

from __future__ import annotations

import math
from dataclasses import replace

from sim.cost.constants import (
    FAMILIES,
    GENERIC,
    Constants,
    calibration_mentions,
    calibration_names,
    read_constants,
    with_allreduce,
)
from sim.data import data_dir, names_in
from sim.hardware import Gpu, Link, read_gpu

_LABELS = {
    "experts": "experts", "dense": "dense GEMM", "attention_decode": "decode attention",
    "attention_prefill": "prefill attention", "attention_latent": "decode attention of MLA models",
}  # fmt: skip


_OPEN_KERNELS = ("vllm", "sglang")
"""Engines that share their kernels for a latent cache."""

_SEVERAL = 3
"""Shapes at least of every family before a GPU's constants stand in for another's."""


def constants_for(gpu: Gpu, engine: str, link: Link | None = None, kin: str = "") -> tuple[Constants, str]:
    """The constants of `gpu` under `engine`, or of its nearest calibrated kin, and a note that says which and how good.

    Nearest is the same GPU; then, among those with every family measured on several shapes, the same architecture, then
    Hopper (an extrapolation, and the note says so); then the same engine, then the nearest memory bandwidth.

    Args:
        gpu: the GPU to price.
        engine: vllm, sglang or trtllm.
        link: between its ranks; all-reduce constants come from a GPU with this kind of link where one was measured.
        kin: calibration to take instead of the nearest, `<gpu>_<engine>`.

    Raises:
        ValueError: `kin` is not a calibration.
    """
    if kin:
        _check_known(kin)
    found = read_constants(kin or nearest_name(gpu, engine))
    return described(found, gpu, engine, link, by_choice=bool(kin))


def described(
    constants: Constants, gpu: Gpu, engine: str, link: Link | None, *, by_choice: bool = False
) -> tuple[Constants, str]:
    """`constants` with all-reduce over the kind of `link`, and a note on what they are for `gpu` under `engine`.

    Where they have none for a latent cache, those of `latent_kin` come along. `by_choice`: the user named them, nearer
    ones may exist.
    """
    constants = with_latent_kin(constants, gpu)
    return _linked(constants, _note(gpu, engine, constants, by_choice), link)


def generic_constants(link: Link | None = None) -> tuple[Constants, str]:
    """The constants fitted to all measured GPUs together, and a note with their error on a GPU held out of the fit."""
    constants = read_constants(GENERIC)
    errors = {family: getattr(constants, family).error for family in FAMILIES}
    note = f"one set of constants for any GPU (errors on GPUs held out of the fit: {_listed(errors)})"
    return _linked(constants, note, link)


def own_name(gpu: Gpu, engine: str) -> str | None:
    """The calibration of this very GPU and engine, None without."""
    name = f"{gpu.name}_{engine}"
    return name if name in calibration_names() else None


def nearest_name(gpu: Gpu, engine: str) -> str:
    """The bundled calibration that prices `gpu` under `engine`, as `constants_for` chooses it."""
    own = own_name(gpu, engine)
    if own is not None:
        return own
    names = [name for name in calibration_names() if _owner(name)[0] == gpu.name or _broad(read_constants(name))]
    known = {name: read_gpu(_owner(name)[0]) for name in names}
    family = gpu.architecture if gpu.architecture in {other.architecture for other in known.values()} else "hopper"

    def distance(name: str) -> tuple[bool, bool, bool, float]:
        other = known[name]
        apart = abs(math.log(other.memory_bandwidth_bytes_per_s / gpu.memory_bandwidth_bytes_per_s))
        return (other.name != gpu.name, other.architecture != family, _owner(name)[1] != engine, apart)

    return min(names, key=distance)


def with_latent_kin(constants: Constants, gpu: Gpu) -> Constants:
    """`constants`, where they have none for a latent cache with those of the nearest kin that runs the same kernels.

    That is one of the same architecture, of the memory bandwidth nearest to that of `gpu`; vLLM and SGLang
    share their kernels (FlashAttention-3 and FlashMLA on Hopper, Triton on Ampere), TensorRT-LLM has its own. Unchanged
    where there is no such kin: the constants of grouped-query attention price the latent cache then.
    """
    if constants.attention_latent is not None or constants.gpu == GENERIC:
        return constants
    kin = [
        name for name in calibration_names()
        if (_owner(name)[1] in _OPEN_KERNELS) == (constants.engine in _OPEN_KERNELS)
        and calibration_mentions(name, "attention_latent", constants.architecture)
    ]  # fmt: skip

    def apart(name: str) -> float:
        other = read_gpu(_owner(name)[0])
        return abs(math.log(other.memory_bandwidth_bytes_per_s / gpu.memory_bandwidth_bytes_per_s))

    near = next((other for other in map(read_constants, sorted(kin, key=apart)) if _has_latent(other, constants)), None)
    if near is None:
        return constants
    borrowed = constants.borrowed | {"attention_latent": f"{near.gpu} under {near.engine}"}
    return replace(constants, attention_latent=near.attention_latent, borrowed=borrowed)


def _has_latent(other: Constants, constants: Constants) -> bool:
    """Whether `other`, of the same architecture, has measured a latent cache on several shapes."""
    family = other.attention_latent
    measured = family is not None and family.fit is not None and family.fit.groups >= _SEVERAL
    return measured and "attention_latent" not in other.borrowed and other.architecture == constants.architecture


def _broad(constants: Constants) -> bool:
    """Whether every family was measured on this GPU, and on several shapes."""
    fits = [getattr(constants, family).fit for family in FAMILIES if family not in constants.borrowed]
    return len(fits) == len(FAMILIES) and all(fit is not None and fit.groups >= _SEVERAL for fit in fits)


def _owner(name: str) -> tuple[str, str]:
    gpu, _, engine = name.rpartition("_")
    return gpu, engine


def _linked(constants: Constants, note: str, link: Link | None) -> tuple[Constants, str]:
    if link is None or link.kind == constants.allreduce.link_kind:
        return constants, note
    over = _measured_over(link, constants.engine)
    if over is None:
        return constants, f"{note}; all-reduce over {link.kind} was never measured, ring hops added to that over nvlink"
    return with_allreduce(constants, over), f"{note}; all-reduce over {link.kind} as on {over.gpu}"


def _measured_over(link: Link, engine: str) -> Constants | None:
    """A calibration with all-reduce measured over this kind of link, by preference of the same engine."""
    for name in sorted(calibration_names(), key=lambda name: _owner(name)[1] != engine):
        constants = read_constants(name)
        if constants.allreduce.link_kind == link.kind and "allreduce" not in constants.borrowed:
            return constants
    return None


def _note(gpu: Gpu, engine: str, found: Constants, by_choice: bool) -> str:
    families = [family for family in (*FAMILIES, "attention_latent") if getattr(found, family) is not None]
    errors = {family: getattr(found, family).error for family in families if family not in found.borrowed}
    where = f"constants of {found.gpu} under {found.engine} (errors on held-out shapes there: {_listed(errors)})"
    borrowed: dict[str, list[str]] = {}
    for family in families:
        if family in found.borrowed:
            borrowed.setdefault(found.borrowed[family], []).append(_LABELS[family])
    for owner, labels in borrowed.items():
        where += f"; {', '.join(labels)} from {owner}"
    if found.gpu == gpu.name:
        return where if found.engine == engine else f"{where}; {engine} was not measured on this GPU"
    reason = f"chosen by cost.kin for {gpu.name}" if by_choice else f"{gpu.name} under {engine} is not calibrated"
    if found.architecture == gpu.architecture:
        nearest = "" if by_choice else f", taken as the nearest of its architecture {gpu.architecture}"
        expected = f"; error to expect from kin: {_listed(found.kin_errors)}" if found.kin_errors else ""
        return f"{where}; {reason}{nearest}{expected}"
    alone = "" if by_choice else f", and no GPU of its architecture {gpu.architecture} on enough shapes"
    where = f"extrapolation: {where}; {reason}{alone}"
    if not found.stranger_errors:
        return where
    return f"{where}; error to expect across architectures: {_listed(found.stranger_errors)}"


def _listed(errors: dict[str, float]) -> str:
    return ", ".join(f"{label} {errors[key]:.0%}" for key, label in _LABELS.items() if errors.get(key) is not None)


def _check_known(name: str) -> None:
    if name not in names_in(data_dir("hardware_specs") / "calibration"):
        raise ValueError(f"cost.kin must be one of {', '.join(calibration_names())}, got {name!r}")
