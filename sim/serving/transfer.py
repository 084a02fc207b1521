"""How long the KV cache of a prompt is under way from a prefill replica to a decode replica, and who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from sim.serving.ticks import ticks

Window = tuple[float, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class KvTransfer:
    """The KV of one sequence on its way, as whole blocks (vLLM's NIXL connector reads block by block).

    Attributes:
        block_tokens: tokens of a block.
        block_bytes: bytes of a block in the layers that keep every token, over all receiving GPUs.
        windows: (bytes per token, tokens) of the groups of layers that keep a window only.
        state_bytes: states of linear attention, whatever the length.
        bytes_per_s: of all GPU pairs that send to each other at once.
        latency_s: of one transfer.
        layers: parts in which it is sent where it overlaps with the prefill, one per layer; 1 for no overlap.
    """

    block_tokens: int
    block_bytes: float
    windows: tuple[Window, ...] = ()
    state_bytes: float = 0.0
    bytes_per_s: float = inf
    latency_s: float = 0.0
    layers: int = 1

    @property
    def overlaps(self) -> bool:
        """Whether a layer is sent as soon as it is computed."""
        return self.layers > 1

    def bytes(self, tokens: int) -> float:
        """Bytes of a sequence with `tokens` tokens cached."""
        blocks = -(-tokens // self.block_tokens) * self.block_bytes
        return blocks + sum(each * min(tokens, most) for each, most in self.windows) + self.state_bytes

    def span(self, tokens: int, free: int, computed: int) -> tuple[int, int, int]:
        """When it starts, when it leaves the link free, and when it is there, all in ticks.

        Args:
            tokens: cached.
            free: both ends are free, and the receiver has room, from then on.
            computed: the prefill is over; with overlap, layers are sent before, the last one not.
        """
        sending = ticks(self.bytes(tokens) / self.bytes_per_s)
        start = free if self.overlaps else max(free, computed)
        end = max(start + sending, computed + -(-sending // self.layers))
        return start, end, max(end + ticks(self.latency_s), start + 1, computed + 1)


class Links:
    """The network links of all replicas, each used by one transfer at a time, in order of their reservation.

    A transfer takes the link of its sender and that of its receiver for its whole time: first in, first out, without
    anybody overtaking. Switches between them never are the bottleneck.
    """

    def __init__(self, replicas: int) -> None:
        self._free = [0] * replicas

    def send(
        self, transfer: KvTransfer, ends: tuple[int, int], tokens: int, now: int, computed: int
    ) -> tuple[int, int]:
        """`tokens` tokens go from one replica to another; returns when that starts and when they are there."""
        free = max(now, *(self._free[number] for number in ends))
        start, end, there = transfer.span(tokens, free, computed)
        for number in ends:
            self._free[number] = end
        return start, there
