"""Vidur's profiling CSV: `compute/<gpu>/<model>/{mlp,attention*}.csv[.gz]` and `network/<node>/<collective>.csv[.gz]`.

Milliseconds, `time_stats.<op>.{min,max,mean,median,std}`; the median is read, as Vidur does. One layer on one GPU, for
tensor parallelism the shard that one GPU would hold. fp16 torch modules under the profiler; prefill with batch 1,
decode with equal contexts. Times below about 10 us carry the resolution of the file, 1 us.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.calibration.checks import Trace
from sim.calibration.faults import SPEED_MARGIN, Fault
from sim.calibration.importers.csv_table import MILLISECOND, Columns, Part, assembled, counts, read_csv
from sim.calibration.importers.identical import read_distinct
from sim.calibration.importers.words import known
from sim.hardware import Gpu, read_gpu

if TYPE_CHECKING:
    import pandas as pd

GPUS = {"a100": "a100_80gb_sxm", "h100": "h100_sxm", "a40": "a40", "a30": "a30"}
NODES = {
    "a100_dgx": "a100_80gb_sxm",
    "h100_dgx": "h100_sxm",
    "a40_pairwise_nvlink": "a40",
    "a100_pairwise_nvlink": "A100-80GB PCIe, NVLink in pairs",
    "h100_pairwise_nvlink": "H100 NVL, NVLink in pairs",
}
"""Node kind -> its GPU; the pairs of PCIe cards have no catalogue entry, so that their rows are set aside."""

NORMAL_QUARTILES = 1.349
"""Interquartile range of a normal distribution over its standard deviation, which is all that these files give."""

FP16_BYTES = 2
RESOLUTION_S = 1e-6


def read_files(paths: Iterable[Path]) -> Trace:
    """All `paths`, but not those with the same bytes under two names; errors as in `read_file`."""
    return read_distinct(paths, read_file)


def read_file(path: Path) -> Trace:
    """One CSV file, known by its name and folders.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a table, GPU, node kind or column that is not known; the message names the file.
    """
    table = path.name.split(".")[0]
    common: Columns = {"engine": "vidur", "dtype": "fp16", "graph": False, "l2_flushed": None}
    if table in ("all_reduce", "send_recv"):
        source = "/".join(path.parts[-3:])
        gpu = known(path.parent.name, NODES, f"{path}: the folder")
        return assembled(source, {**common, "gpu": gpu, "engine": "nccl", "samples": 3}, _collective(path, table))
    gpu = known(path.parent.parent.name.removeprefix("fork_"), GPUS, f"{path}: the folder above the model's")
    common |= {"gpu": gpu, "model": path.parent.name}
    source = "/".join(path.parts[-4:])
    if table == "mlp":
        parts = _modules(path)
        return assembled(source, {**common, "samples": 20}, parts, [_too_fast(parts, read_gpu(gpu))])
    if table.startswith("attention"):
        return assembled(source, common, attention_parts(path))
    raise ValueError(f"{path}: no importer for a table of that name; known: mlp, attention*, all_reduce, send_recv")


def attention_parts(path: Path) -> list[Part]:
    """Prefill and decode rows of an attention table, which LLMServingSim's older profiles share."""
    times = [f"time_stats.attn_{phase}.{figure}" for phase in ("prefill", "decode") for figure in ("median", "std")]
    shape = ("n_embd", "n_q_head", "n_kv_head", "num_tensor_parallel_workers")
    table = read_csv(path, (*shape, "batch_size", "prefill_chunk_size", "kv_cache_size", *times))
    prefill = (table["prefill_chunk_size"] > 0).to_numpy(bool)
    return [
        _attention(table[prefill], "attention_prefill", "prefill_chunk_size"),
        _attention(table[~prefill], "attention_decode", None),
    ]


def _attention(table: pd.DataFrame, op: str, width: str | None) -> Part:
    degree = table["num_tensor_parallel_workers"]
    columns = {
        "op": op, "batch": counts(table["batch_size"]), "width": counts(table[width]) if width else 1,
        "context_tokens": counts(table["kv_cache_size"]), "heads": counts(table["n_q_head"] // degree),
        "kv_heads": counts((table["n_kv_head"] // degree).clip(lower=1)), "kv_dtype": "fp16", "window_tokens": 0,
        "head_dim": counts(table["n_embd"] // table["n_q_head"]), "tensor_parallel": counts(degree),
        "kernels": table["attention_backend"].str.rsplit(".", n=1).str[-1].str.lower(),
        **_latency(table, op.replace("attention", "attn")),
    }  # fmt: skip
    return table, columns


def _modules(path: Path) -> list[Part]:
    """The modules of one layer; `add` has no op of its own. Files of forks may lack some."""
    keys = ("n_head", "n_kv_head", "n_embd", "n_expanded_embd", "num_tokens", "num_tensor_parallel_workers")
    table = read_csv(path, keys)
    head_dim = table["n_embd"] // table["n_head"]
    degree = table["num_tensor_parallel_workers"]
    heads, kv_heads = table["n_head"] // degree, (table["n_kv_head"] // degree).clip(lower=1)
    hidden, width, tokens = table["n_embd"], table["n_expanded_embd"] // degree, table["num_tokens"]
    up = width * np.where(table.get("use_gated_mlp", True), 2, 1)

    def gemm(n: Any, k: Any) -> Columns:
        return {"op": "gemm", "m": counts(tokens), "n": counts(n), "k": counts(k)}

    def over_tokens(op: str, size: Any) -> Columns:
        return {"op": op, "tokens": counts(tokens), "hidden": counts(size)}

    shapes = {
        "emb": over_tokens("embedding", hidden),
        "input_layernorm": over_tokens("norm", hidden),
        "post_attention_layernorm": over_tokens("norm", hidden),
        "attn_pre_proj": gemm((heads + 2 * kv_heads) * head_dim, hidden),
        "attn_rope": {"op": "rope", "tokens": counts(tokens), "heads": counts(heads), "head_dim": counts(head_dim)},
        "attn_post_proj": gemm(hidden, heads * head_dim),
        "mlp_up_proj": gemm(up, hidden),
        "mlp_act": over_tokens("activation", width),
        "mlp_down_proj": gemm(hidden, width),
        "add": {"op": "layer", "tokens": counts(tokens)},
    }
    found = [name for name in shapes if f"time_stats.{name}.median" in table]
    if not found:
        raise ValueError(f"{path}: no column time_stats.<op>.median; known ops: {', '.join(shapes)}")
    extra = {"tensor_parallel": counts(degree)}
    return [(table, {"layer": name, **extra, **shapes[name], **_latency(table, name)}) for name in found]


def _too_fast(parts: list[Part], gpu: Gpu) -> Fault:
    """GEMMs that read their weights faster than memory gives them: the modules timed in between evict the L2."""
    masks = [np.zeros(len(table), bool) for table, _ in parts]
    for mask, (_, columns) in zip(masks, parts, strict=True):
        if columns["op"] == "gemm":
            weights = (columns["n"] * columns["k"]).to_numpy(np.float64) * FP16_BYTES
            mask[:] = (
                columns["latency_s"] + RESOLUTION_S / 2 < weights / gpu.memory_bandwidth_bytes_per_s / SPEED_MARGIN
            )
    return np.concatenate(masks), "gemm reads its weights faster than the memory of the GPU gives them"


def _collective(path: Path, op: str) -> list[Part]:
    table = read_csv(path, ("num_workers", "devices_per_node", "size", f"time_stats.{op}.median"))
    columns = {
        "op": op, "gpus": counts(table["num_workers"]), "gpus_per_node": counts(table["devices_per_node"]),
        "message_bytes": counts(table["size"]), **_latency(table, op),
    }  # fmt: skip
    return [(table, columns)]


def _latency(table: pd.DataFrame, name: str) -> Columns:
    median = table[f"time_stats.{name}.median"].to_numpy(np.float64) * MILLISECOND
    deviation = table.get(f"time_stats.{name}.std", table[f"time_stats.{name}.median"] * np.nan)
    return {"latency_s": median, "spread_s": deviation.to_numpy(np.float64) * MILLISECOND * NORMAL_QUARTILES}
