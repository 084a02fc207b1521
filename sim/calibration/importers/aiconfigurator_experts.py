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
    code, shapes = _grouped(table, ["framework", "version", "hidden_size", "inter_size", "topk", "num_experts"])
    gated = np.array([_is_gated(*shape) for shape in shapes], bool)[code]
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


def _is_gated(engine: str, version: str, *shape: int) -> bool:
    """Whether three matrices were timed: SGLang's Triton kernel ran some squared-ReLU shapes as gated ones.

    Its times say so: with three matrices they reach the bandwidth of its other shapes, with two only two thirds of it.
    """
    as_gated = engine == "SGLang" and (version == "0.5.10" or shape[0] == 1024)
    return as_gated or shape not in NON_GATED


def _loads(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected distinct experts and (token, expert) pairs of the timed rank, per row."""
    distinct, routed = np.empty(len(table)), np.empty(len(table))
    tokens = table["num_tokens"].to_numpy()
    code, settings = _grouped(table, ["framework", "num_experts", "topk", "moe_ep_size", "distribution"])
    order = np.argsort(code, kind="stable")
    bounds = np.searchsorted(code[order], np.arange(len(settings) + 1))
    for i, (engine, experts, per_token, ranks, distribution) in enumerate(settings):
        at = order[bounds[i] : bounds[i + 1]]
        counts, which = np.unique(tokens[at], return_inverse=True)
        exponent = re.fullmatch(r"power_law_(\d+(?:\.\d+)?)", distribution)
        if exponent:
            load = power_law_load(tuple(counts.tolist()), experts, per_token, ranks, float(exponent[1]))
        elif distribution == "balanced":
            load = balanced_load(counts, experts, per_token, ranks, in_bf16=engine == "VLLM")
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
    """Rows whose times contradict the routing they name.

    TRT-LLM's skewed top-1 rows of 16 experts take 4 to 8 times as long as the balanced ones, already at one token.
    DeepSeek-V3's shape in fp8 goes through its grouped gate in vLLM and SGLang: it admits 4 of 8 groups, balanced
    logits have an expert in each, and only about half of the experts are hit (time stays at 0.55 of their bytes).
    """
    if not (rows["op"] == "experts").any():
        return []
    names = ["experts", "experts_per_token", "hidden", "expert_width"]
    experts, per_token, hidden, width = (rows[name].to_numpy(np.int64, na_value=0) for name in names)
    trtllm = (rows["engine"] == "trtllm").to_numpy(bool)
    balanced = (rows["routing"] == "balanced").to_numpy(bool)
    top1 = trtllm & ~balanced & (experts == 16) & (per_token == 1)
    deepseek = (experts == 256) & (per_token == 8) & (hidden == 7168) & (width == 2048)
    grouped = ~trtllm & balanced & deepseek & (rows["dtype"] == "fp8_block").to_numpy(bool)
    return [
        (top1, "skewed top-1 routing over 16 experts in TRT-LLM: not plausible against the balanced rows"),
        (grouped, "balanced routing through DeepSeek-V3's grouped gate: about half of the named experts are hit"),
    ]
