"""What engines say about their acceptance, read as it is meant.

Engines publish four different figures under similar names, and only the first is alpha of the paper:

- *alpha*: P(a draft is accepted given that all before it were). No engine prints it;
- *unconditional rate per position*: rounds whose first j drafts were all accepted, over rounds;
- *accepted / drafted* ("acceptance rate"): equals alpha for one draft, lies below it for more;
- *acceptance length*: tokens per round, the bonus token counted (vLLM before 0.9 left it out).
"""

from sim.speculation.engine_figures.base import EngineFigures
from sim.speculation.engine_figures.requests import fit_beta_rate, read_request_histograms
from sim.speculation.engine_figures.sglang import read_sglang
from sim.speculation.engine_figures.vllm import read_vllm_log, read_vllm_metrics

__all__ = [
    "EngineFigures",
    "fit_beta_rate",
    "read_request_histograms",
    "read_sglang",
    "read_vllm_log",
    "read_vllm_metrics",
]
