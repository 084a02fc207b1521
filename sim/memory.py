"""GPU memory: what weights and the engine take, and how many KV blocks are left."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.attention import Attention
from sim.cost.forward import ForwardCost
from sim.cost.host import Engine
from sim.errors import InfeasibleError
from sim.footprint import expert_bytes_total, kv_groups, table_bytes, weight_bytes_total
from sim.hardware import Cluster, Gpu
from sim.model import Model
from sim.serving.kv import KvLayout
from sim.serving.scheduler import Scheduler

ACTIVATION_BYTES = 2.0
EXPERT_CHUNK_TOKENS = 16_384
"""Tokens of all attention ranks that pass the experts at a time (vLLM: VLLM_FUSED_MOE_CHUNK_SIZE)."""

GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Resident:
    """A model whose weights and KV live on the GPUs.

    Attributes:
        model: the model.
        tensor_parallel: GPUs that all but the routed experts are cut over; each group of them holds a copy.
        data_parallel: such groups, which share one copy of the routed experts.
        whole_experts: experts lie whole on the GPUs (expert parallelism).
        redundant_experts: copies of experts more, per layer, over all GPUs.
        layer_share: share of the layers on a GPU, 1 without pipeline parallelism.
        first, last: whether its stage holds the embedding and the LM head; tied weights lie in both.
    """

    model: Model
    tensor_parallel: int
    data_parallel: int = 1
    whole_experts: bool = False
    redundant_experts: int = 0
    layer_share: float = 1.0
    first: bool = True
    last: bool = True

    @classmethod
    def of(cls, forward: ForwardCost) -> Resident:
        """The model of these passes, where they run."""
        redundant = forward.routing.redundant_experts if forward.expert_parallel else 0
        return cls(forward.model, forward.tensor_parallel, forward.data_parallel, forward.expert_parallel, redundant)

    def stages(self, layers: list[int]) -> list[Resident]:
        """The same in stages of so many layers."""
        last = len(layers) - 1
        return [
            replace(self, layer_share=held / sum(layers), first=stage == 0, last=stage == last)
            for stage, held in enumerate(layers)
        ]

    @property
    def weight_bytes(self) -> float:
        """Weights on one GPU, the one with most experts."""
        model, experts = self.model, expert_bytes_total(self.model)
        tables = model.own_tables * table_bytes(model)
        rest = (weight_bytes_total(model) - experts - tables) / self.tensor_parallel
        held = model.own_tables if self.first and self.last else min(model.own_tables, self.first + self.last)
        layers = self.layer_share * (rest + experts * self._expert_share)
        return model.modules * (layers + held * table_bytes(model) / self.tensor_parallel)

    @property
    def token_bytes(self) -> float:
        """KV of one token on one GPU, in the layers that keep every token."""
        groups = [group for group in kv_groups(self.model) if not group.window_tokens]
        token_bytes = sum(group.bytes_per_token * self._share(group.kv_heads) for group in groups)
        return self.layer_share * self.model.modules * token_bytes

    @property
    def sequence_bytes(self) -> float:
        """KV of one sequence on one GPU that does not grow with its length: windows and linear states."""
        windows = sum(
            group.bytes_per_token * group.window_tokens * self._share(group.kv_heads)
            for group in kv_groups(self.model)
            if group.window_tokens
        )
        states = sum(group.state_bytes for group in kv_groups(self.model)) / self.tensor_parallel
        return self.layer_share * (windows + states)

    @property
    def windows(self) -> list[tuple[float, int]]:
        """KV of one token in each group of layers that keep a window, over all GPUs, and the window's tokens."""
        copies = self.tensor_parallel * self.model.modules
        return [
            (group.bytes_per_token * self._share(group.kv_heads) * copies, group.window_tokens)
            for group in kv_groups(self.model)
            if group.window_tokens
        ]

    @property
    def state_bytes(self) -> float:
        """States of one sequence's linear attention, over all GPUs."""
        return sum(group.state_bytes for group in kv_groups(self.model))

    def activation_bytes(self, scheduler: Scheduler) -> float:
        """Peak of activations in the largest step: the widest layer's tensors, and the logits in bf16 and fp32.

        An estimate of what vLLM's profiling run finds; residual, its normed copy, then the attention's or the FFN's
        inner tensors, whichever are wider. The experts' tensors hold the tokens of all attention ranks.
        """
        most = scheduler.max_batched_tokens
        gathered = min(self.data_parallel, max(1.0, EXPERT_CHUNK_TOKENS / most))
        widths = [
            max(_attention_width(run.attention), _ffn_width(run.ffn.width + run.ffn.shared_width, run.ffn.matrices))
            / self.tensor_parallel
            + gathered
            * run.ffn.experts_per_token
            * (self.model.hidden + _ffn_width(run.ffn.expert_width, run.ffn.matrices) / self._expert_cuts)
            for run in self.model.layers
        ]
        per_token = ACTIVATION_BYTES * (3 * self.model.hidden + max(widths, default=0.0))
        logits = scheduler.max_seqs * self.model.vocab * (ACTIVATION_BYTES + 4.0) if self.last else 0.0
        return most * per_token + logits

    @property
    def _expert_cuts(self) -> int:
        """Parts that each expert is cut into."""
        return 1 if self.whole_experts else self.tensor_parallel * self.data_parallel

    @property
    def _expert_share(self) -> float:
        """Share of the routed experts on one GPU."""
        ranks, experts = self.tensor_parallel * self.data_parallel, [run.ffn.experts for run in self.model.layers]
        if not self.whole_experts or not any(experts):
            return 1.0 / ranks
        return max(-(-(count + self.redundant_experts) // ranks) / count for count in experts if count)

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
