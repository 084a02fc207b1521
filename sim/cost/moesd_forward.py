"""`cost=moesd`: passes priced by the paper's model of a target pass, fitted to another cost model's passes.

T(t) = bias + k1 G(t) + k2 N(t) + k3 G(T_exp(t)) for t tokens (MoESD, arXiv 2505.19645, section 3.3); a dense model has
the first two terms. It knows neither context nor prefill: a pass costs what its tokens cost at one context. Beside the
op-level models it shows what of a result the paper's few parameters carry.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sim import theory
from sim.cost.constants import Constants
from sim.cost.forward import ForwardCost
from sim.cost.pricing import CostModel, Fitted
from sim.cost.routing import Routing
from sim.cost.shape import Count, Seconds, StepShape
from sim.hardware import Gpu, Link
from sim.model import Model

_POINTS = 48
_MOST_TOKENS = 4096
_LAMBDAS = np.linspace(0.2, 1.0, 9)
_LOG_BASES = np.geomspace(1e-4, 3e-2, 25)

Column = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PassModel:
    """The paper's model of one forward pass.

    Attributes:
        bias, k1, k2, k3: seconds.
        knee_tokens: lambda times the ridge point.
        s: base of G.
        experts, per_token: E and K of every MoE layer; 1 and 1 for a dense model.
        rel_error: mean relative error on the passes it was fitted to.
    """

    bias: float
    k1: float
    k2: float
    k3: float
    knee_tokens: float
    s: float
    experts: int
    per_token: int
    rel_error: float

    def dense_s(self, tokens: Count) -> Seconds:
        """bias + k1 G(t)."""
        growth: Seconds = self.bias + self.k1 * theory.roofline_growth(tokens, self.knee_tokens, self.s)
        return growth

    def experts_s(self, tokens: Count) -> Seconds:
        """k2 N(t) + k3 G(T_exp(t))."""
        hit, growth = _expert_columns(np.asarray(tokens), self.experts, self.per_token, self.knee_tokens, self.s)
        seconds: Seconds = self.k2 * hit + self.k3 * growth
        return seconds


def fit_pass(forward: ForwardCost, context_tokens: int) -> PassModel:
    """Bounded least squares of relative errors over passes of 1 to 4096 sequences of one token.

    Linear in the four times, which must not be negative; lambda and s by search, lambda between the 0.2 and 1 of the
    paper.

    Args:
        forward: what is fitted.
        context_tokens: cached tokens of each sequence.

    Raises:
        ValueError: the model's MoE layers are of several kinds.
    """
    from scipy.optimize import nnls

    kinds = {(run.ffn.experts, run.ffn.experts_per_token) for run in forward.model.layers if run.ffn.kind == "moe"}
    if len(kinds) > 1:
        raise ValueError(
            f"cost=moesd needs one kind of MoE layer, {forward.model.name} has {len(kinds)}; use cost=auto"
        )
    experts, per_token = kinds.pop() if kinds else (1, 1)
    tokens = np.unique(np.rint(np.geomspace(1, _MOST_TOKENS, _POINTS)).astype(np.int64))
    shape = StepShape(sequences=tokens, context_tokens=context_tokens * tokens)
    seconds = np.asarray(forward.seconds(shape), dtype=np.float64)
    peaks = forward.peaks(forward.dtype)
    ridge = peaks.flops_per_s / peaks.bytes_per_s
    best = None
    for knee in _LAMBDAS * ridge:
        for base in np.exp(_LOG_BASES):
            columns = [np.ones(len(tokens)), theory.roofline_growth(tokens, knee, base)]
            if experts > 1:
                columns += _expert_columns(tokens, experts, per_token, knee, base)
            scaled = np.stack(columns, axis=1) / seconds[:, None]
            times, residual = nnls(scaled, np.ones(len(tokens)))
            if best is None or residual < best[0]:
                best = (residual, knee, base, times, float(np.mean(np.abs(scaled @ times - 1.0))))
    assert best is not None
    _, knee, base, times, error = best
    bias, k1, k2, k3 = [*times.tolist(), 0.0, 0.0][:4]
    return PassModel(
        bias=bias, k1=k1, k2=k2, k3=k3, knee_tokens=float(knee), s=float(base),
        experts=experts, per_token=per_token, rel_error=error,
    )  # fmt: skip


def _expert_columns(tokens: Count, experts: int, per_token: int, knee: float, base: float) -> list[Column]:
    """N(t) and G(T_exp(t)); the latter is 0 without tokens."""
    count = np.asarray(tokens, dtype=np.float64)
    hit = theory.activated_experts(count, experts, per_token)
    each = np.divide(count * per_token, hit, out=np.zeros_like(count), where=count > 0)
    return [np.asarray(hit), np.where(count > 0, theory.roofline_growth(each, knee, base), 0.0)]


@dataclass(frozen=True, kw_only=True)
class MoesdForward(ForwardCost):
    """A forward pass priced by a `PassModel`; attention is in it, at the context it was fitted at."""

    passes: PassModel

    def own_tokenwise(self, tokens: Count, logit_rows: Count) -> dict[str, Seconds]:
        """Dense matrices with all else that is no expert."""
        nothing = 0.0 * np.asarray(logit_rows)
        return {"gemm": self.passes.dense_s(tokens) + nothing, "collective": nothing}

    def shared_tokenwise(self, sequences: Count, width: Count, tokens: Count) -> dict[str, Seconds]:
        """The experts."""
        return {"experts": self.passes.experts_s(tokens), "exchange": 0.0}

    def prefill_attention_s(self, shape: StepShape) -> Seconds:
        """In `tokenwise`."""
        return 0.0 * np.asarray(shape.prefill_pairs)

    def decode_attention_s(self, shape: StepShape) -> Seconds:
        """In `tokenwise`."""
        return 0.0 * np.asarray(shape.sequences * np.asarray(shape.context_tokens))


@dataclass(kw_only=True, slots=True)
class Moesd(CostModel):
    """The paper's model, fitted to what `Fitted` says of the same model and GPU.

    Attributes:
        kernels: as for `Fitted`.
        context_tokens: cached tokens per sequence at which it is fitted.

    Raises:
        ValueError: an unknown engine, context_tokens < 0, several kinds of MoE layer, or data-parallel attention.
    """

    kernels: str = "vllm"
    context_tokens: int = 512

    def __post_init__(self) -> None:
        self._base()
        if self.context_tokens < 0:
            raise ValueError(f"cost.context_tokens must be >= 0, got {self.context_tokens}")

    def constants(self, gpu: Gpu, link: Link | None) -> tuple[Constants, str]:
        """Those it is fitted to."""
        constants, note = self._base().constants(gpu, link)
        fitted = f"ten-parameter model of MoESD, fitted at {self.context_tokens} cached tokens a sequence to {note}"
        return constants, fitted

    def forward(
        self, model: Model, gpu: Gpu, link: Link, tensor_parallel: int, expert_parallel: bool, routing: Routing,
        data_parallel: int = 1,
    ) -> ForwardCost:  # fmt: skip
        """Fitted to this model's passes."""
        if data_parallel > 1:
            raise ValueError(f"cost=moesd knows no data-parallel attention, got {data_parallel} groups; use cost=auto")
        forward = self._base().forward(model, gpu, link, tensor_parallel, expert_parallel, routing)
        inner = {each.name: getattr(forward, each.name) for each in fields(ForwardCost)}
        return MoesdForward(**inner, passes=fit_pass(forward, self.context_tokens))

    def _base(self) -> Fitted:
        return Fitted(kernels=self.kernels, kernel_factor=self.kernel_factor)
