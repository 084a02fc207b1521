"""NVIDIA AIConfigurator's kernel database: Parquet tables `<gpu>/<op family>/<framework>/<version>/<table>.parquet`.

Latencies there are milliseconds (microseconds where a column says `_us`, and in `moe_a2a_perf`), messages are counted
in elements, tensor-parallel shards are already applied to heads, n and k but not to `inter_size`. What is timed is
kernel time inside a CUDA graph without L2 flush, except where `graph` says no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.calibration.checks import Trace, concat, frame, sift
from sim.calibration.importers.aiconfigurator_collectives import custom_allreduce, deepep, moe_a2a, nccl
from sim.calibration.importers.aiconfigurator_experts import experts, implausible
from sim.calibration.importers.aiconfigurator_tables import Columns, dtypes, latency
from sim.calibration.importers.words import gpu_name

if TYPE_CHECKING:
    import pandas as pd


def read_tables(paths: Iterable[Path]) -> Trace:
    """All `paths`, one after the other; errors as in `read_table`."""
    return concat([read_table(path) for path in paths])


def read_table(path: Path) -> Trace:
    """One table of the database, known by its file name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a table, a column or a word that is not known here; the message names the file.
    """
    import pandas as pd
    import pyarrow as pa

    if not path.is_file():
        raise FileNotFoundError(f"no table {path}")
    reader = READERS.get(path.stem)
    if reader is None:
        raise ValueError(f"{path}: no importer for a table of that name; known: {', '.join(READERS)}")
    try:
        table = pd.read_parquet(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error
    source = "/".join(path.parts[-5:])
    try:
        parts = [frame(len(table), {**_common(table, source), **columns}) for columns in reader(table)]
    except KeyError as error:
        raise ValueError(f"{path}: column {error} is missing") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    rows = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    return sift(rows, source, suspects=implausible(rows))


def _common(table: pd.DataFrame, source: str) -> Columns:
    engine = table["framework"].str.lower()
    return {
        "gpu": table["device"].map({device: gpu_name(device) for device in table["device"].unique()}),
        "engine": engine,
        "engine_version": table["version"],
        "kernels": table["kernel_source"],
        "source": source,
        "l2_flushed": False,
        "samples": np.where(engine == "vllm", 6, 10),  # SGLang and TRT-LLM: 10 at least
    }


def _gemm(table: pd.DataFrame) -> list[Columns]:
    shape = {name: table[name] for name in ("m", "n", "k")}
    eager = (table["framework"] == "VLLM") & (table["version"] == "0.24.0") & (table["gemm_dtype"] == "fp8_block")
    return [{"op": "gemm", "dtype": dtypes(table["gemm_dtype"]), "graph": ~eager, **latency(table), **shape}]


def _attention(op: str) -> Callable[[pd.DataFrame], list[Columns]]:
    def read(table: pd.DataFrame) -> list[Columns]:
        columns = {
            "op": op,
            "dtype": dtypes(table["attn_dtype"]),
            "kv_heads": table["num_key_value_heads"],
            "head_dim": table["head_dim"],
            "window_tokens": table.get("window_size", 0),
            "graph": True,
        }
        return [{**columns, **_sequences(table)}]

    return read


def _mla(op: str) -> Callable[[pd.DataFrame], list[Columns]]:
    def read(table: pd.DataFrame) -> list[Columns]:
        module = op.endswith("module")
        columns = {
            "op": op,
            "dtype": dtypes(table["gemm_type" if module else "mla_dtype"]),
            "tensor_parallel": table["tp_size"],
            "graph": None if module else True,  # some modules ran eagerly; the tables do not say which
            "model": table["model"] if module else None,
            "layer": table["op_name"] if module else None,  # tells the sparse kinds apart
        }
        return [{**columns, **_sequences(table)}]

    return read


def _sequences(table: pd.DataFrame) -> Columns:
    return {
        "batch": table["batch_size"],
        "width": table["isl"],
        "context_tokens": table["step"],
        "heads": table["num_heads"],
        "kv_dtype": dtypes(table["kv_cache_dtype"]),
        **latency(table),
    }


def _kda(table: pd.DataFrame) -> list[Columns]:
    columns = {"op": "linear_attention", "dtype": "bf16", "layer": table["phase"], "model": table["model_name"]}
    shape = {"batch": table["batch_size"], "width": table["seq_len"], "heads": table["num_k_heads"]}
    return [{**columns, **shape, "head_dim": table["head_k_dim"], "graph": True, **latency(table)}]


READERS: Mapping[str, Callable[[pd.DataFrame], list[Columns]]] = {
    "gemm_perf": _gemm,
    "moe_perf": experts,
    "context_attention_perf": _attention("attention_prefill"),
    "generation_attention_perf": _attention("attention_decode"),
    "context_mla_perf": _mla("mla_prefill"),
    "generation_mla_perf": _mla("mla_decode"),
    "mla_context_module_perf": _mla("mla_prefill_module"),
    "mla_generation_module_perf": _mla("mla_decode_module"),
    "custom_allreduce_perf": custom_allreduce,
    "nccl_perf": nccl,
    "moe_a2a_perf": moe_a2a,
    "wideep_deepep_ll_perf": deepep("avg_t_us"),
    "wideep_deepep_normal_perf": deepep("transmit_us"),
    "kda_perf": _kda,
    "dsa_context_module_perf": _mla("sparse_attention_module"),
    "glm5_dsa_attn_module_perf": _mla("sparse_attention_module"),
    "msa_context_module_perf": _mla("sparse_attention_module"),
}
