"""moesd-sim: a discrete-event simulator of LLM serving with speculative decoding, for dense and MoE models.

The public names below are looked up when first used, so that `import sim` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.config import Experiment
    from sim.model import read_model
    from sim.run import Result, simulate
    from sim.sweeps import sweep

__version__ = "0.1.0"

__all__ = ["Experiment", "Result", "__version__", "read_model", "simulate", "sweep"]

_HOME = {
    "Experiment": "sim.config",
    "Result": "sim.run",
    "read_model": "sim.model",
    "simulate": "sim.run",
    "sweep": "sim.sweeps",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
