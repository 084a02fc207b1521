"""Which kernels a call runs, from torch.profiler, and its Chrome trace on request."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from sim.profiling.place import Place
from sim.profiling.timing import Call

_LONGEST = 120


def kernel_names(call: Call, place: Place, chrome_trace: Path | None = None) -> list[str]:
    """Names of the kernels of one call, each once, in order of their first start; on a CPU those of the operators.

    Args:
        call: what to run, eagerly.
        place: where.
        chrome_trace: file for the Chrome trace of the call.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its chatter would break the progress line
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if place.is_cuda else [])]
    with profile(activities=activities, acc_events=True) as seen:
        call()
        place.synchronize()
    if chrome_trace is not None:
        chrome_trace.parent.mkdir(parents=True, exist_ok=True)
        seen.export_chrome_trace(str(chrome_trace))
    wanted = torch.autograd.DeviceType.CUDA if place.is_cuda else torch.autograd.DeviceType.CPU
    events = sorted(
        (event for event in seen.events() or [] if event.device_type == wanted and _is_work(event.name)),
        key=lambda event: event.time_range.start,
    )
    return list(dict.fromkeys(event.name[:_LONGEST] for event in events))


def _is_work(name: str) -> bool:
    return not name.startswith(("Memcpy", "Memset", "[memory]", "cuda"))


def engine_of(kernel: str) -> tuple[str, str]:
    """Engine and version for the kernel trace: vLLM where a kernel of its ran, else torch."""
    if "vllm" in kernel.split("+"):
        from importlib.metadata import version

        return "vllm", version("vllm")
    return "torch", str(torch.__version__)
