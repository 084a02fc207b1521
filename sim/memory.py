"""GPU memory: what weights and the engine take, and how many KV blocks are left."""

from __future__ import annotations

from dataclasses import dataclass

from sim.attention import Attention
from sim.cost.host import Engine
from sim.errors import InfeasibleError
from sim.footprint import kv_groups, weight_bytes_total
from sim.hardware import Cluster, Gpu
from sim.model import Model
from sim.serving.kv import KvLayout
from sim.serving.scheduler import Scheduler

ACTIVATION_BYTES = 2.0
GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Resident:
    """A model whose weights and KV live on the GPUs, cut over `tensor_parallel` of them."""

    model: Model
    tensor_parallel: int

    @property
    def weight_bytes(self) -> float:
        """Weights on one GPU."""
        return self.model.modules * weight_bytes_total(self.model) / self.tensor_parallel

    @property
    def token_bytes(self) -> float:
        """KV of one token on one GPU, in the layers that keep every token."""
        groups = [group for group in kv_groups(self.model) if not group.window_tokens]
        return self.model.modules * sum(group.bytes_per_token * self._share(group.kv_heads) for group in groups)

    @property
    def sequence_bytes(self) -> float:
        """KV of one sequence on one GPU that does not grow with its length: windows and linear states."""
        windows = sum(
            group.bytes_per_token * group.window_tokens * self._share(group.kv_heads)
            for group in kv_groups(self.model)
            if group.window_tokens
        )
        return windows + sum(group.state_bytes for group in kv_groups(self.model)) / self.tensor_parallel

    def activation_bytes(self, scheduler: Scheduler) -> float:
        """Peak of activations in the largest step: the widest layer's tensors, and the logits in bf16 and fp32.

        An estimate of what vLLM's profiling run finds; residual, its normed copy, then the attention's or the FFN's
        inner tensors, whichever are wider.
        """
        widths = [
            max(_attention_width(run.attention), _ffn_width(run.ffn.width + run.ffn.shared_width, run.ffn.matrices))
            / self.tensor_parallel
            + run.ffn.experts_per_token
            * (self.model.hidden + _ffn_width(run.ffn.expert_width, run.ffn.matrices) / self.tensor_parallel)
            for run in self.model.layers
        ]
        per_token = ACTIVATION_BYTES * (3 * self.model.hidden + max(widths, default=0.0))
        return scheduler.max_batched_tokens * per_token + scheduler.max_seqs * self.model.vocab * (
            ACTIVATION_BYTES + 4.0
        )

    def _share(self, kv_heads: int) -> float:
        return -(-kv_heads // self.tensor_parallel) / kv_heads


def _attention_width(attention: Attention) -> int:
    return 2 * attention.heads * (attention.head_dim + attention.value_width)


def _ffn_width(width: int, matrices: int) -> int:
    return matrices * width


def kv_layout(
    residents: list[Resident], gpu: Gpu, cluster: Cluster, engine: Engine, scheduler: Scheduler, lookahead_tokens: int
) -> KvLayout:
    """The KV pool of one rank with these models on its GPUs; the target comes first.

    Raises:
        InfeasibleError: nothing is left for KV.
    """
    token_bytes = sum(resident.token_bytes for resident in residents)
    sequence_bytes = sum(resident.sequence_bytes for resident in residents)
    block_bytes = token_bytes * cluster.block_tokens
    if cluster.kv_blocks:
        return KvLayout(cluster.kv_blocks, cluster.block_tokens, block_bytes, sequence_bytes, lookahead_tokens)
    usable = gpu.memory_bytes * cluster.memory_utilization
    weights = sum(resident.weight_bytes for resident in residents)
    activations = max(resident.activation_bytes(scheduler) for resident in residents)
    windows = sequence_bytes * scheduler.max_seqs
    left = usable - weights - activations - engine.reserve_bytes - windows
    blocks = int(left // block_bytes) if block_bytes else 2**31
    if left <= 0 or blocks < 1:
        names = " + ".join(resident.model.name for resident in residents)
        raise InfeasibleError(
            f"{names} on {gpu.name}: {gpu.memory_bytes / GIB:.1f} GiB x memory_utilization {cluster.memory_utilization}"
            f" = {usable / GIB:.1f} GiB, less weights {weights / GIB:.1f}, activations {activations / GIB:.1f}, engine "
            f"{engine.reserve_bytes / GIB:.1f}, windows and states of {scheduler.max_seqs} sequences "
            f"{windows / GIB:.1f}, leaves {left / GIB:.1f} GiB for KV blocks of {block_bytes / GIB:.4f} GiB; "
            f"use more or larger GPUs (cluster.tensor_parallel), or lower scheduler.max_seqs or "
            f"scheduler.max_batched_tokens"
        )
    return KvLayout(blocks, cluster.block_tokens, block_bytes, sequence_bytes, lookahead_tokens)
