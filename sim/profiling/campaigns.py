"""The campaigns: which cases, from a model, a tensor-parallel degree and a grid of sizes. Plain data, nothing runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from sim.layers import Ffn, Layers
from sim.model import Model
from sim.profiling.cases import Case, Value
from sim.profiling.experts import route
from sim.profiling.grids import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the campaigns are drawn up for.

    Attributes:
        model, draft: the target, and the draft model (None: no draft steps, no SD rounds).
        model_name, draft_name: their names in the kernel trace.
        ranks: tensor-parallel degree; every shape is that of one rank.
        grid: sizes.
        dtype: name of the data type, that of the cache too.
        attention, prefill, experts: kernels to time; whole steps use the first that reads caches of any length.
        elementwise: who computes elementwise ops.
        layers, draft_layers: layers of whole steps.
        gpus: GPUs, or processes on a CPU, for collectives.
        buildable: whether the model can be built for whole steps.
    """

    model: Model
    draft: Model | None
    model_name: str
    draft_name: str
    ranks: int
    grid: Grid
    dtype: str
    attention: tuple[str, ...]
    prefill: tuple[str, ...]
    experts: tuple[str, ...]
    elementwise: str
    layers: int
    draft_layers: int
    gpus: int
    buildable: bool = True


def cases_of(campaign: str, plan: Plan) -> list[Case]:
    """The cases of a campaign, each once; none where the model or the machine has nothing for it.

    Raises:
        ValueError: the campaign is unknown.
    """
    if campaign not in CAMPAIGNS:
        raise ValueError(f"campaign must be one of {', '.join(CAMPAIGNS)}, got {campaign!r}")
    return list({case.label(): case for case in CAMPAIGNS[campaign](plan)}.values())


def _gemm(plan: Plan) -> Iterator[Case]:
    for run in plan.model.layers:
        for matrix in (*run.attention.linears(plan.model.hidden), *run.ffn.linears(plan.model.hidden)):
            n = matrix.n // plan.ranks if matrix.split == "column" else matrix.n
            k = matrix.k // plan.ranks if matrix.split == "row" else matrix.k
            for tokens in plan.grid.tokens:
                yield Case("gemm", {"m": tokens, "n": n, "k": k}, "linear")


def _experts(plan: Plan) -> Iterator[Case]:
    """The model's own layers, then the same layer with other numbers of experts."""
    layers = [run.ffn for run in plan.model.layers if run.ffn.kind == "moe"]
    others = [
        replace(ffn, experts=count, experts_per_token=min(ffn.experts_per_token, max(1, count // 4)))
        for ffn in layers
        for count in plan.grid.experts
        if count != ffn.experts
    ]
    for ffn in (*layers, *others):
        pools = sorted({max(ffn.experts_per_token, ffn.experts * share // 8) for share in (1, 2, 4, 6, 8)})
        for tokens in plan.grid.tokens:
            spread = [f"pool_{pool}" for pool in pools if pool <= tokens * ffn.experts_per_token]
            for routing in (*plan.grid.routings, *(spread if ffn in layers else [])):
                for kernel in plan.experts:
                    yield _experts_case(plan, ffn, tokens, routing, kernel)


def _experts_case(plan: Plan, ffn: Ffn, tokens: int, routing: str, kernel: str) -> Case:
    chosen = route(tokens, ffn.experts, ffn.experts_per_token, routing)
    shape: dict[str, Value] = {
        "tokens": tokens,
        "hidden": plan.model.hidden,
        "experts": ffn.experts,
        "experts_per_token": ffn.experts_per_token,
        "expert_width": ffn.expert_width,
        "tensor_parallel": plan.ranks,
        "expert_parallel": 1,
        "routing": routing,
        "distinct_experts": float(len(np.unique(chosen))),
        "routed_tokens": float(tokens * ffn.experts_per_token),
        "gated": ffn.gated,
    }
    return Case("experts", shape, kernel)


def _attention_prefill(plan: Plan) -> Iterator[Case]:
    grid = plan.grid
    for run in plan.model.layers:
        for batch in grid.prefill_batches:
            for history in grid.histories:
                for prompt in grid.prompts:
                    yield from _attention(plan, run, "prefill", (batch, prompt, history))


def _attention_decode(plan: Plan) -> Iterator[Case]:
    yield from _cached_attention(plan, (1,))


def _verify_attention(plan: Plan) -> Iterator[Case]:
    yield from _cached_attention(plan, plan.grid.widths)


def _cached_attention(plan: Plan, widths: tuple[int, ...]) -> Iterator[Case]:
    for run in plan.model.layers:
        for context in plan.grid.contexts:
            for batch in plan.grid.batches:
                if batch * context <= plan.grid.most_cached_tokens:
                    for width in widths:
                        yield from _attention(plan, run, "decode", (batch, width, context))


def _attention(plan: Plan, run: Layers, phase: str, sizes: tuple[int, int, int]) -> Iterator[Case]:
    """The cases of one layer's attention at (batch, width, context); none for kinds that no kernel here computes."""
    attention = run.attention
    batch, width, context = sizes
    shape: dict[str, Value] = {"batch": batch, "width": width, "context_tokens": context, "kv_dtype": plan.dtype}
    shape["heads"] = attention.heads // plan.ranks
    if attention.kind == "mla":
        yield Case(f"mla_{phase}", shape, "sdpa" if phase == "prefill" else "matmul", attention)
    elif attention.kind in {"full", "sliding"} and attention.value_width == attention.head_dim:
        shape["kv_heads"] = -(-attention.kv_heads // plan.ranks)
        shape |= {"head_dim": attention.head_dim, "window_tokens": attention.window_tokens}
        for kernel in plan.prefill if phase == "prefill" else plan.attention:
            yield Case(f"attention_{phase}", shape, kernel)


def _elementwise(plan: Plan) -> Iterator[Case]:
    hidden, kernel = plan.model.hidden, plan.elementwise
    for tokens in plan.grid.tokens:
        yield Case("norm", {"tokens": tokens, "hidden": hidden}, kernel)
        yield Case("embedding", {"tokens": tokens, "hidden": hidden, "vocabulary": plan.model.vocab}, "embedding")
        for run in plan.model.layers:
            attention, ffn = run.attention, run.ffn
            for width in {ffn.width, ffn.shared_width} - {0}:
                yield Case("activation", {"tokens": tokens, "hidden": width // plan.ranks, "gated": ffn.gated}, kernel)
            heads = attention.heads // plan.ranks
            if attention.kind in {"full", "sliding", "chunked"}:
                shape: dict[str, Value] = {"tokens": tokens, "heads": heads, "head_dim": attention.head_dim}
                yield Case("rope", shape, kernel)


def _lm_head(plan: Plan) -> Iterator[Case]:
    vocabulary = plan.model.vocab // plan.ranks
    for tokens in plan.grid.tokens:
        shape: dict[str, Value] = {
            "tokens": tokens,
            "hidden": plan.model.embedding_width,
            "vocabulary": vocabulary,
        }
        yield Case("lm_head", shape, "linear")


def _sampling(plan: Plan) -> Iterator[Case]:
    for batch in plan.grid.batches:
        yield Case("sampling", {"batch": batch, "vocabulary": plan.model.vocab}, "eager")


def _rejection(plan: Plan) -> Iterator[Case]:
    for batch in plan.grid.batches:
        for width in plan.grid.widths:
            if width > 1:
                yield Case("rejection", {"batch": batch, "width": width, "vocabulary": plan.model.vocab}, "eager")


def _collectives(plan: Plan) -> Iterator[Case]:
    if plan.gpus > 1:
        for op in ("all_reduce", "all_gather"):
            for size in plan.grid.message_bytes:
                yield Case(op, {"gpus": plan.gpus, "gpus_per_node": plan.gpus, "message_bytes": size}, "distributed")


def _target_step(plan: Plan) -> Iterator[Case]:
    if plan.buildable:
        yield from _steps(plan, "target_step", plan.model_name, plan.layers, plan.grid.step_widths)


def _draft_step(plan: Plan) -> Iterator[Case]:
    """The first pass of a round sees as many positions as were verified, the others one."""
    if plan.draft is not None:
        yield from _steps(plan, "draft_step", plan.draft_name, plan.draft_layers, plan.grid.step_widths)


def _sd_round(plan: Plan) -> Iterator[Case]:
    """Only on one rank: rejection needs the whole vocabulary."""
    if plan.draft is None or plan.ranks > 1 or not plan.buildable:
        return
    widths = tuple(width for width in plan.grid.step_widths if width > 1)
    for case in _steps(plan, "target_step", plan.model_name, plan.layers, widths):
        yield Case("sd_round", {**case.shape, "drafter": plan.draft_name, "layer": "round"}, case.kernel)


def _steps(plan: Plan, op: str, name: str, layers: int, widths: tuple[int, ...]) -> Iterator[Case]:
    attention = next((kernel for kernel in plan.attention if kernel != "flash"), "sdpa")
    for context in plan.grid.step_contexts:
        for batch in plan.grid.step_batches:
            for width in widths:
                shape: dict[str, Value] = {"model": name, "layers": layers, "tensor_parallel": plan.ranks}
                shape |= {"batch": batch, "width": width, "context_tokens": context}
                yield Case(op, shape, f"{attention}+{plan.experts[0]}")


CAMPAIGNS: dict[str, Callable[[Plan], Iterator[Case]]] = {
    "gemm": _gemm,
    "experts": _experts,
    "attention_prefill": _attention_prefill,
    "attention_decode": _attention_decode,
    "verify_attention": _verify_attention,
    "elementwise": _elementwise,
    "lm_head": _lm_head,
    "sampling": _sampling,
    "rejection": _rejection,
    "collectives": _collectives,
    "target_step": _target_step,
    "draft_step": _draft_step,
    "sd_round": _sd_round,
}
"""Campaign -> its cases, in the order of the cost model's families."""
