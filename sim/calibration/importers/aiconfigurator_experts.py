"""AIConfigurator's `moe_perf`: routed experts under synthetic routing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.importers.aiconfigurator_tables import Columns, dtypes, latency
from sim.calibration.importers.expert_loads import balanced_load, power_law_load

if TYPE_CHECKING:
    import pandas as pd

NON_GATED = frozenset({(2688, 1856, 6, 128), (1024, 2688, 22, 512), (2048, 5120, 22, 512), (8192, 5120, 22, 512)})
"""(hidden, width, top-k, experts) of Nemotron's squared-ReLU experts; TRT-LLM's tables name the kernel nongated."""


def experts(table: pd.DataFrame) -> list[Columns]:
    """Rows of `moe_perf`: one routed layer on one rank; tokens, experts and width are those of the whole layer."""
    distinct, routed = _loads(table)
    code, shapes = _grouped(table, ["hidden_size", "inter_size", "topk", "num_experts"])
    gated = np.array([shape not in NON_GATED for shape in shapes], bool)[code]
    columns = {
        "op": "experts",
        "dtype": dtypes(table["moe_dtype"]),
        "graph": True,
        "tokens": table["num_tokens"],
        "hidden": table["hidden_size"],
        "experts": table["num_experts"],
        "experts_per_token": table["topk"],
        "expert_width": table["inter_size"],
        "tensor_parallel": table["moe_tp_size"],
        "expert_parallel": table["moe_ep_size"],
        "routing": table["distribution"],
        "distinct_experts": distinct,
        "routed_tokens": routed,
        "gated": gated,
    }
    return [{**columns, **latency(table)}]


def _loads(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected distinct experts and (token, expert) pairs of the timed rank, per row."""
    distinct, routed = np.empty(len(table)), np.empty(len(table))
    tokens = table["num_tokens"].to_numpy()
    code, settings = _grouped(table, ["num_experts", "topk", "moe_ep_size", "distribution"])
    order = np.argsort(code, kind="stable")
    bounds = np.searchsorted(code[order], np.arange(len(settings) + 1))
    for i, (experts, per_token, ranks, distribution) in enumerate(settings):
        at = order[bounds[i] : bounds[i + 1]]
        counts, which = np.unique(tokens[at], return_inverse=True)
        exponent = re.fullmatch(r"power_law_(\d+(?:\.\d+)?)", distribution)
        if exponent:
            load = power_law_load(tuple(counts.tolist()), experts, per_token, ranks, float(exponent[1]))
        elif distribution == "balanced":
            load = balanced_load(counts, experts, per_token, ranks)
        else:
            raise ValueError(f"distribution must be balanced or power_law_<exponent>, got {distribution!r}")
        distinct[at], routed[at] = load.distinct_experts[which], load.routed_tokens[which]
    return distinct, routed


def _grouped(table: pd.DataFrame, names: list[str]) -> tuple[NDArray[np.integer[Any]], list[tuple[Any, ...]]]:
    """Per row the number of its setting of the columns `names`, and the settings."""
    groups = table.groupby(names, sort=False)
    code = groups.ngroup().to_numpy()
    firsts = np.unique(code, return_index=True)[1]
    return code, [tuple(row) for row in table[names].iloc[firsts].itertuples(index=False)]


def implausible(rows: pd.DataFrame) -> list[tuple[NDArray[np.bool_], str]]:
    """TRT-LLM's skewed top-1 rows of 16 experts: 4 to 8 times the balanced ones, already at one token."""
    bad = (rows["op"] == "experts") & (rows["engine"] == "trtllm") & (rows["routing"] != "balanced")
    bad &= (rows["experts"] == 16).fillna(value=False) & (rows["experts_per_token"] == 1).fillna(value=False)
    reason = "skewed top-1 routing over 16 experts in TRT-LLM: not plausible against the balanced rows"
    return [(bad.to_numpy(bool), reason)]
