"""Collectives between the GPUs of this machine (processes on a CPU): one process each, the slowest rank counts."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from torch import distributed

from sim.profiling.place import Place
from sim.profiling.timing import Timing, measure

_COPIES = 20
"""Collectives in one CUDA graph."""

_PATIENCE_S = 120.0
"""Longest wait for a rank: the first collective starts NCCL."""


class Group:
    """`gpus` processes that time collectives together until `close`.

    Args:
        gpus: how many.
        place: kind of device and data type.

    Raises:
        ValueError: fewer GPUs on this machine.
    """

    def __init__(self, gpus: int, place: Place) -> None:
        if place.is_cuda and torch.cuda.device_count() < gpus:
            raise ValueError(f"gpus must be <= {torch.cuda.device_count()} on this machine, got {gpus}")
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        port = _free_port()
        self.gpus = gpus
        self._ends: list[Connection] = []
        self._ranks = []
        for rank in range(gpus):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, gpus, port, place, there), daemon=True)
            process.start()
            self._ends.append(here)
            self._ranks.append(process)

    def measure(self, op: str, message_bytes: int, repeats: int) -> Timing:
        """Time all_reduce, or all_gather of what every rank has in the end.

        Raises:
            RuntimeError: a rank failed or did not answer.
        """
        for end in self._ends:
            end.send((op, message_bytes, repeats))
        answers = [_answer(end) for end in self._ends]
        timings = [answer for answer in answers if isinstance(answer, Timing)]
        if len(timings) < self.gpus:
            raise RuntimeError(next(f"{op}: {answer}" for answer in answers if isinstance(answer, str)))
        return max(timings, key=lambda timing: timing.latency_s)

    def close(self) -> None:
        """End the processes."""
        for end, process in zip(self._ends, self._ranks, strict=True):
            end.close()
            process.join(timeout=10)
            process.terminate()


def _answer(end: Connection) -> Timing | str:
    """What a rank says, or why it says nothing."""
    if not end.poll(_PATIENCE_S):
        return f"no answer within {_PATIENCE_S:g} s"
    try:
        answer: Timing | str = end.recv()
    except EOFError:
        return "a rank died"
    return answer


def _serve(rank: int, gpus: int, port: int, place: Place, asked: Connection) -> None:
    """Answer (op, message_bytes, repeats) with a Timing, or the words of an error, until the other end closes."""
    here, backend = place, "gloo"
    if place.is_cuda:
        torch.cuda.set_device(rank)
        here, backend = Place(torch.device("cuda", rank), place.dtype, place.gpu, place.dtype_name), "nccl"
    store = distributed.TCPStore("127.0.0.1", port, gpus, rank == 0)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=gpus)
    try:
        while True:
            op, message_bytes, repeats = asked.recv()
            try:
                # The ranks must make the same calls, so none may choose their number from its own clock.
                call = _collective(op, message_bytes, gpus, here)
                asked.send(measure(call, here, repeats, flush=False, copies=_COPIES))
            except RuntimeError as error:
                asked.send(str(error).splitlines()[0])
    except EOFError:
        distributed.destroy_process_group()


def _collective(op: str, message_bytes: int, gpus: int, place: Place) -> Callable[[], object]:
    part = max(1, message_bytes // place.element_bytes // gpus)
    message = torch.zeros(part * gpus, device=place.device, dtype=place.dtype)
    if op == "all_reduce":
        return lambda: distributed.all_reduce(message)
    mine = place.randn(part)
    return lambda: distributed.all_gather_into_tensor(message, mine)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
