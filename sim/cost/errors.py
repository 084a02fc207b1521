"""How far the time of an op family may be off: what its calibration says of shapes that it did not see."""

from __future__ import annotations

from sim.cost.forward import ForwardCost

ASSUMED = 0.2
"""Mean relative error of what nobody measured: small kernels, passes of a drafter, an uncalibrated family."""

UNKNOWN = 1.0
"""Mean relative error from which on a family is simply not known: kernels of another generation can be ten times as
slow (TensorRT-LLM's latent decode on Ampere against Hopper), which says little of a third."""

HOST = 0.25
"""Mean relative error of host times: another CPU, another patch version. Published times per token on H100 ask for host
times 0 to 23 % below the preset's (`validation/measured/token_times.csv`)."""

COMMON = 0.03
"""Mean relative error of all kernels of a card together: two collections of the same kernels differ by 2 to 6 %, so
each is about 3 % from their mean."""

WHOLE_STEPS = 0.7
"""Errors of whole steps over what the errors of their parts add up to: parts compensate. Fitted on 61 published times
per token and speedups of six deployments (root mean square over deployments 0.61, rounded up), judged on others
(`python -m validation bands`)."""

CONSTANTS = {
    "gemm": "dense", "lm_head": "dense", "experts": "experts", "collective": "allreduce",
    "attention_decode": "attention_decode", "attention_prefill": "attention_prefill",
    "elementwise": "elementwise", "embedding": "elementwise", "rejection": "sampling",
}  # fmt: skip
"""Op family of `StepCost.families` -> family of constants that prices it; the others are `draft` and `host`."""

NORMAL = 1.2533
"""Standard deviation over mean absolute error of a normal distribution."""


def family_errors(forward: ForwardCost) -> dict[str, float]:
    """Standard deviation of the logarithm of each family's time on this GPU, all families of `StepCost.families`.

    That of shapes held out of the fit where the GPU was measured; where it was not, what predictions of one GPU from
    another of its architecture, or of another architecture, were off by (`kin_errors`, `stranger_errors`), at least
    `ASSUMED` where nobody knows. A family that the GPU's own calibration borrows is not measured either. What all
    kernels of a card share (`COMMON`) comes on top. All are as whole steps show them (`WHOLE_STEPS`).
    """
    constants, gpu = forward.constants, forward.gpu
    own = gpu.name == constants.gpu
    near = gpu.architecture == constants.architecture
    elsewhere = constants.kin_errors if near else constants.stranger_errors
    latent = constants.attention_latent is not None and any(run.attention.kind == "mla" for run in forward.model.layers)
    found = {"host": deviation(HOST), "draft": deviation(ASSUMED)}
    for family, name in CONSTANTS.items():
        key = f"{name}_fp8" if forward.dtype == "fp8" and family in {"gemm", "experts"} else name
        if family == "attention_decode" and latent:
            key = "attention_latent"
        part = getattr(constants, key)
        held_out = ASSUMED if part is None or part.error is None else part.error
        measured = own and key not in constants.borrowed
        error = held_out if measured else elsewhere.get(key, max(ASSUMED, held_out))
        found[family] = deviation(min(error, UNKNOWN))
    return found


def deviation(mean_error: float) -> float:
    """Standard deviation of a logarithm that is off by `mean_error` on the mean, in a whole step."""
    return WHOLE_STEPS * NORMAL * mean_error
