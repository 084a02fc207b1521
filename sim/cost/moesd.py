"""The ten-parameter performance model of MoESD (arXiv 2505.19645, section 3.3 and appendix C), and its fit.

Verification, drafting and rejection are sums of a load time, a load time per activated expert and the growth G of
eq. 11. The speedup is eq. 4; Algorithm 1 prints another denominator (the AR time in it, one draft pass instead of
gamma), under which 46 of the 60 published speedups could not be reached.

What cannot be known. Speedups are ratios, so a common factor on all times cancels, and where batches stay below the
knee (G near 1) a load time and the strength of the growth beside it are one number. A fit predicts speedups well and
its parameters mean nothing alone. It therefore adds a very weak pull of the three load times and of lambda to their
lower bounds, which picks one point of the valley, and reports the rank of the Jacobian: how many of the ten directions
the points determine. The knee makes several valleys, hence several starts, spread over lambda.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sim import theory
from sim.footprint import active_params, weight_bytes_total
from sim.hardware import Gpu
from sim.model import Model

WIDTHS = ("paper", "engine")
_LOAD_FACTOR = 5.0
_PULL = 1e-4
_RANK_TOLERANCE = 1e-6

Column = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Measured speedups as columns of one length.

    Attributes:
        batch: B. gamma: draft tokens. experts, per_token: E and K (1 and 1 for a dense model).
        sigma: tokens per round over gamma + 1.
        speedup: T_AR / T_SD.
    """

    batch: Column
    gamma: Column
    experts: Column
    per_token: Column
    sigma: Column
    speedup: Column

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1 or not len(self):
            raise ValueError(f"points must be columns of one length, at least 1, got {lengths}")

    def __len__(self) -> int:
        return len(self.batch)

    def take(self, rows: NDArray[np.int64] | slice) -> Points:
        """These rows."""
        return Points(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Lower bounds of the load times, upper bounds of rejection, all in seconds (table of section 3.3).

    Attributes:
        dense_load_s: loading the target's weights that every step needs.
        expert_load_s: loading one expert of every layer.
        draft_load_s: loading the draft model.
        reject_s: the longest rejection seen.
        ridge_tokens: RP of eq. 1; with two bytes per weight, the tokens at which a GEMM turns compute-bound.
    """

    dense_load_s: float
    expert_load_s: float
    draft_load_s: float
    reject_s: float
    ridge_tokens: float

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < getattr(self, field.name) < math.inf:
                raise ValueError(f"{field.name} must be > 0 and finite, got {getattr(self, field.name)}")


def bounds_for(target: Model, draft: Model, gpu: Gpu, tensor_parallel: int, reject_s: float) -> Bounds:
    """Bounds of a pair on `tensor_parallel` GPUs, the draft model on one.

    The paper counts the non-FFN weights as always loaded; so is a shared expert, which is therefore among them here.
    """
    run = next((run for run in target.layers if run.ffn.kind == "moe"), None)
    if run is None or any(r.ffn.kind == "moe" and r.ffn != run.ffn for r in target.layers):
        raise ValueError(f"the ten-parameter model needs one kind of MoE layer, {target.name} has none or several")
    layers = sum(r.count for r in target.layers if r.ffn.kind == "moe")
    expert = layers * run.ffn.expert_params(target.hidden)
    bandwidth = gpu.memory_bandwidth_bytes_per_s
    dense = active_params(target) - run.ffn.experts_per_token * expert
    return Bounds(
        dense_load_s=dense * target.weight_bytes / (bandwidth * tensor_parallel),
        expert_load_s=expert * target.expert_bytes / (bandwidth * tensor_parallel),
        draft_load_s=weight_bytes_total(draft) / bandwidth,
        reject_s=reject_s,
        ridge_tokens=float(theory.ridge_point(gpu.flops_per_s("bf16"), bandwidth)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TenParameters:
    """The paper's k's in seconds; `lambda_` is the practical over the theoretical ridge point, `s` the base of G."""

    bias: float
    k1: float
    k2: float
    k3: float
    draft_bias: float
    draft_k: float
    reject_bias: float
    reject_k: float
    lambda_: float
    s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MoesdModel:
    """The model with its parameters; all methods take scalars or arrays, and seconds come out.

    Attributes:
        parameters: the ten.
        ridge_tokens: RP.
        width: what a verification computes per sequence: `paper` gamma tokens, `engine` gamma + 1.
    """

    parameters: TenParameters
    ridge_tokens: float
    width: str = "paper"

    def __post_init__(self) -> None:
        if self.width not in WIDTHS:
            raise ValueError(f"width must be one of {', '.join(WIDTHS)}, got {self.width!r}")

    def target_s(self, tokens: Column, experts: Column, per_token: Column) -> Column:
        """One target pass over `tokens` tokens: bias + k1 G(t) + k2 N(t) + k3 G(T_exp(t))."""
        p = self.parameters
        hit = theory.activated_experts(tokens, experts, per_token)
        each = tokens * per_token / hit
        seconds: Column = p.bias + p.k1 * self._growth(tokens) + p.k2 * hit + p.k3 * self._growth(each)
        return seconds

    def speedup(self, points: Points) -> Column:
        """Eq. 4 at the points (their `speedup` is not looked at)."""
        p = self.parameters
        verified = points.gamma + (1.0 if self.width == "engine" else 0.0)
        decode_s = self.target_s(points.batch, points.experts, points.per_token)
        verify_s = self.target_s(points.batch * verified, points.experts, points.per_token)
        draft_s = p.draft_bias + p.draft_k * self._growth(points.batch)
        round_s = points.gamma * draft_s + verify_s + p.reject_bias + p.reject_k * points.batch
        speedup: Column = points.sigma * (points.gamma + 1.0) * decode_s / round_s
        return speedup

    def _growth(self, tokens: Column) -> Column:
        growth: Column = theory.roofline_growth(tokens, self.parameters.lambda_ * self.ridge_tokens, self.parameters.s)
        return growth


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A fitted model.

    Attributes:
        model: with the best parameters of all starts.
        rmse: of the speedup over the fitted points.
        rank: directions of the ten that the points determine.
    """

    model: MoesdModel
    rmse: float
    rank: int


def fit(points: Points, bounds: Bounds, width: str = "paper", starts: int = 32, seed: int = 0) -> Fit:
    """Bounded least squares on the speedups (trust region reflective), the best of several starts.

    Args:
        points: what was measured; fewer than ten points leave directions open, which the rank says.
        bounds: of the parameters.
        width: `paper` or `engine`.
        starts: starting points inside the bounds, the same for the same seed.
        seed: of the starts.
    """
    from scipy.optimize import least_squares

    def model(z: Column) -> MoesdModel:
        return MoesdModel(parameters=_parameters(z, bounds), ridge_tokens=bounds.ridge_tokens, width=width)

    def residuals(z: Column) -> Column:
        return np.concatenate([model(z).speedup(points) - points.speedup, _PULL * z[[0, 1, 2, 8]]])

    low, high = np.array(_LOW), np.array(_HIGH)
    found = [
        least_squares(residuals, z, bounds=(low, high), method="trf", x_scale="jac", max_nfev=400)
        for z in _starts(starts, seed)
    ]
    best = min(found, key=lambda result: float(result.cost))
    jacobian = np.asarray(best.jac, dtype=np.float64)[: len(points)]
    singular = np.linalg.svd(jacobian, compute_uv=False)
    rank = int((singular > _RANK_TOLERANCE * singular[0]).sum())
    return Fit(model=model(best.x), rmse=rmse(model(best.x), points), rank=rank)


def rmse(model: MoesdModel, points: Points) -> float:
    """Root mean square error of the speedup."""
    return float(np.sqrt(np.mean((model.speedup(points) - points.speedup) ** 2)))


# The search runs over: logarithms of bias, k2, draft_bias above their lower bounds; k1, k3, draft_k over the load time
# beside them; reject_bias, reject_k over the longest rejection; lambda; ln s.
_LOW = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.0)
_HIGH = (*[math.log(_LOAD_FACTOR)] * 3, math.inf, math.inf, math.inf, 1.0, 1.0, 1.0, math.log(2.0))


def _parameters(z: Column, bounds: Bounds) -> TenParameters:
    dense, expert, draft = bounds.dense_load_s, bounds.expert_load_s, bounds.draft_load_s
    return TenParameters(
        bias=dense * math.exp(z[0]),
        k2=expert * math.exp(z[1]),
        draft_bias=draft * math.exp(z[2]),
        k1=dense * float(z[3]),
        k3=dense * float(z[4]),
        draft_k=draft * float(z[5]),
        reject_bias=bounds.reject_s * float(z[6]),
        reject_k=bounds.reject_s * float(z[7]),
        lambda_=float(z[8]),
        s=math.exp(z[9]),
    )


def _starts(count: int, seed: int) -> Column:
    """Random load times, weak growth (strong growth overflows far from the data), lambda over its whole range."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.05, 0.95, (count, len(_LOW)))
    z[:, :3] *= math.log(_LOAD_FACTOR)
    z[:, 3:6] = 10.0 ** rng.uniform(-3.0, 0.0, (count, 3))
    z[:, 7] = 10.0 ** rng.uniform(-4.0, -1.0, count)
    z[:, 8] = np.linspace(0.22, 0.98, count)
    z[:, 9] = 10.0 ** rng.uniform(-3.0, -1.3, count)
    return z
