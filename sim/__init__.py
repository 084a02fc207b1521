"""moesd-sim: a discrete-event simulator of LLM serving with speculative decoding, for dense and MoE models.

The public names below are looked up when first used, so that `import sim` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.application import compose
    from sim.catalogue import load_model
    from sim.config import Experiment
    from sim.cost.host import read_engine
    from sim.cost.pricing import Analytic
    from sim.cost.routing import Uniform
    from sim.disaggregation import Disaggregation
    from sim.errors import InfeasibleError
    from sim.hardware import Cluster
    from sim.request import Requests
    from sim.result import Interrupted, Result
    from sim.run import simulate, step_cost
    from sim.serving.chunked import ChunkedPrefill
    from sim.serving.failures import PlannedFailures, RandomFailures
    from sim.serving.router import LeastRequests, LeastTokens, PowerOfTwo, PrefixAware, RoundRobin
    from sim.speculation.acceptance import ConstantRate, RatePerDepth
    from sim.speculation.draft import DraftModel
    from sim.speculation.length import Fixed
    from sim.speculation.speculation import Speculation
    from sim.workload import Lengths, Synthetic

__version__ = "0.1.0"

_HOME = {
    "Analytic": "sim.cost.pricing",
    "ChunkedPrefill": "sim.serving.chunked",
    "Cluster": "sim.hardware",
    "ConstantRate": "sim.speculation.acceptance",
    "Disaggregation": "sim.disaggregation",
    "DraftModel": "sim.speculation.draft",
    "Experiment": "sim.config",
    "Fixed": "sim.speculation.length",
    "InfeasibleError": "sim.errors",
    "Interrupted": "sim.result",
    "LeastRequests": "sim.serving.router",
    "LeastTokens": "sim.serving.router",
    "Lengths": "sim.workload",
    "PlannedFailures": "sim.serving.failures",
    "PowerOfTwo": "sim.serving.router",
    "PrefixAware": "sim.serving.router",
    "RandomFailures": "sim.serving.failures",
    "RatePerDepth": "sim.speculation.acceptance",
    "Requests": "sim.request",
    "Result": "sim.result",
    "RoundRobin": "sim.serving.router",
    "Speculation": "sim.speculation.speculation",
    "Synthetic": "sim.workload",
    "Uniform": "sim.cost.routing",
    "compose": "sim.application",
    "load_model": "sim.catalogue",
    "read_engine": "sim.cost.host",
    "simulate": "sim.run",
    "step_cost": "sim.run",
}

__all__ = [
    "Analytic",
    "ChunkedPrefill",
    "Cluster",
    "ConstantRate",
    "Disaggregation",
    "DraftModel",
    "Experiment",
    "Fixed",
    "InfeasibleError",
    "Interrupted",
    "LeastRequests",
    "LeastTokens",
    "Lengths",
    "PlannedFailures",
    "PowerOfTwo",
    "PrefixAware",
    "RandomFailures",
    "RatePerDepth",
    "Requests",
    "Result",
    "RoundRobin",
    "Speculation",
    "Synthetic",
    "Uniform",
    "__version__",
    "compose",
    "load_model",
    "read_engine",
    "simulate",
    "step_cost",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
