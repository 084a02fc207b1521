"""InferSim's kernel benchmarks: CSV files `<family>/[<phase>/]<gpu>/<shape>.csv`, latencies in microseconds.

Kernels by name of the family: DeepGEMM (GEMM, grouped GEMM), FlashAttention-3 (prefill), FlashInfer (decode), FlashMLA.
Eager, one GPU. `mfu` is the share of the dtype's peak that the publisher computed; a row where it does not follow from
shape and latency was edited or timed another shape, and is set aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.checks import Trace
from sim.calibration.faults import Fault
from sim.calibration.importers.csv_table import MICROSECOND, Columns, Part, assembled, counts, read_csv
from sim.calibration.importers.identical import read_distinct
from sim.calibration.importers.words import known, translated
from sim.hardware import read_gpu

if TYPE_CHECKING:
    import pandas as pd

GPUS = {"h20": "h20", "h800": "h800_sxm"}
DTYPES = {"bf16": "bf16", "fp16": "fp16", "fp8": "fp8"}
ATTENTION = ("dtype", "kv_dtype", "batch_size", "kv_len", "latency_us", "mfu")
MFU_TOLERANCE = 0.05
ROWS_DRAWN = (0.4, 1.7)
"""Rows of a grouped GEMM over the nominal number: few experts scatter widely, small groups are padded to 128 rows."""

SLOWER_THAN_LONGER = 1.1
"""A decode case may take this much longer than one with more context before it counts as dominated by its launch."""


def read_files(paths: Iterable[Path]) -> Trace:
    """All `paths`, but not those with the same bytes under two names; errors as in `read_file`."""
    return read_distinct(paths, read_file)


def read_file(path: Path) -> Trace:
    """One CSV file, known by its folders.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, shape, column or word that is not known, or a file without units; the message names it.
    """
    family = next((name for name in FAMILIES if name in path.parts), None)
    if family is None:
        raise ValueError(f"{path}: no folder of it is one of {', '.join(FAMILIES)}; keep the publisher's tree")
    source = "/".join(path.parts[path.parts.index(family) :])
    gpu = known(path.parent.name, GPUS, f"{path}: the folder")
    common = {"gpu": gpu, "graph": False, "l2_flushed": None}
    try:
        parts, suspects = FAMILIES[family](path, gpu)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    return assembled(source, common, parts, suspects)


def _gemm(path: Path, gpu: str) -> tuple[list[Part], list[Fault]]:
    """The dtype is not a column; every `mfu` is a share of the fp8 peak, and DeepGEMM's fp8 has block scales."""
    table = read_csv(path, ("m", "k", "n", "latency_us", "mfu"))
    columns = {name: counts(table[name]) for name in ("m", "n", "k")}
    flops = 2 * table["m"] * table["n"] * table["k"]
    asked = {"op": "gemm", "engine": "deepgemm", "dtype": "fp8_block", **columns, **_latency(table, "latency_us")}
    return [(table, asked)], [_wrong_mfu(table, flops, "latency_us", "mfu", read_gpu(gpu).flops_per_s("fp8"))]


def _grouped_gemm(path: Path, gpu: str) -> tuple[list[Part], list[Fault]]:
    """Two rows a case: gate and up together, then down.

    Rows per expert were drawn at 0.7 to 1.3 x `tokens_per_expert` and cut to integers, so a mean of 1 leaves about half
    of the local experts idle and every larger mean none. What was drawn is not in the file, but `mfu` gives its sum.
    """
    shape = ("num_local_experts", "topk", "hidden_size", "intermediate_size", "tokens_per_expert")
    table = read_csv(path, (*shape, "up_proj_us", "up_mfu", "down_proj_us", "down_mfu"))
    peak = read_gpu(gpu).flops_per_s("fp8")
    hidden, width = counts(table["hidden_size"]), counts(table["intermediate_size"])
    nominal = table["tokens_per_expert"] * table["num_local_experts"]
    parts, off = [], []
    for name, n, k in (("up", 2 * width, hidden), ("down", hidden, width)):
        drawn = table[f"{name}_mfu"] * peak * table[f"{name}_proj_us"] * MICROSECOND / (2 * n * k).astype(float)
        idle = (table["tokens_per_expert"] == 1).to_numpy(bool)
        columns = {
            "op": "grouped_gemm", "engine": "deepgemm", "dtype": "fp8_block", "layer": path.parts[-3],
            "tokens": counts(nominal), "routed_tokens": drawn, "experts": counts(table["num_local_experts"]),
            "distinct_experts": np.where(idle, drawn, table["num_local_experts"]),
            "experts_per_token": counts(table["topk"]), "n": n, "k": k, **_latency(table, f"{name}_proj_us"),
        }  # fmt: skip
        parts.append((table, columns))
        off.append(~drawn.between(ROWS_DRAWN[0] * nominal, ROWS_DRAWN[1] * nominal).to_numpy(bool))
    return parts, [(np.concatenate(off), "mfu does not follow from shape and latency")]


def _attention(path: Path, _: str) -> tuple[list[Part], list[Fault]]:
    """GQA and MLA; the file's name is query heads, KV heads, head dim (MLA: heads, latent or value dim, rope dim)."""
    prefill, mla = "prefill" in path.parts, "mla" in path.parts
    first, second, third = _numbers(path)
    batch: Any
    width: Any
    context: Any
    if prefill:
        table = read_csv(path, ("seq_len", "latency_us"))
        batch, width, context = 1, counts(table["seq_len"]), 0
    else:
        header = "batch_size" in path.read_text().splitlines()[0]
        table = read_csv(path, ("batch_size", "kv_len", "latency_us"), () if header else ATTENTION)
        batch, width, context = counts(table["batch_size"]), 1, counts(table["kv_len"])
    engine = ("flash_attention" if prefill else "flashmla") if mla else ("flash_attention" if prefill else "flashinfer")
    dtype = translated(table["dtype"], DTYPES)
    columns = {
        "op": f"{'mla' if mla else 'attention'}_{'prefill' if prefill else 'decode'}", "engine": engine,
        "dtype": dtype, "kv_dtype": translated(table["kv_dtype"], DTYPES) if "kv_dtype" in table else dtype,
        "batch": batch, "width": width, "context_tokens": context, "heads": first, "window_tokens": 0,
        **({} if mla else {"kv_heads": second, "head_dim": third}), **_latency(table, "latency_us"),
    }  # fmt: skip
    return [(table, columns)], [] if prefill else [_launch_bound(table)]


def _sparse(path: Path, _: str) -> tuple[list[Part], list[Fault]]:
    """DeepSeek sparse attention: the indexer's logits, and attention over the tokens it chose."""
    indexer = path.stem.startswith("logits")
    renamed = {"batchsize": "batch_size", "next_n": "s_q", "s_kv": "kv_len"}
    table = read_csv(path, ("latency_us",)).rename(columns=renamed)
    for name in ("batch_size", "s_q"):
        table[name] = table.get(name, 1)
    if "kv_len" not in table:
        raise ValueError("column kv_len or s_kv is missing")
    columns = {
        "op": "sparse_attention", "engine": "flashmla", "layer": f"{path.parts[-3]}_{path.stem}",
        "dtype": "fp8" if indexer else translated(table["dtype"], DTYPES),
        "batch": counts(table["batch_size"]), "width": counts(table["s_q"]),
        "context_tokens": counts(table["kv_len"] - table["s_q"]), **_latency(table, "latency_us"),
    }  # fmt: skip
    return [(table, columns)], []


def _unitless(path: Path, _: str) -> tuple[list[Part], list[Fault]]:
    raise ValueError(f"{path}: its columns carry no unit, and files of different shapes hold the same bytes; not used")


def _latency(table: pd.DataFrame, name: str) -> Columns:
    return {"latency_s": table[name].to_numpy(np.float64) * MICROSECOND}


def _numbers(path: Path) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)-(\d+)-(\d+)", path.stem)
    if match is None:
        raise ValueError(f"{path}: its name must be three numbers like 32-8-128.csv")
    return int(match[1]), int(match[2]), int(match[3])


def _wrong_mfu(table: pd.DataFrame, flops: Any, time: str, share: str, peak_flops_per_s: float) -> Fault:
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (flops / (table[time] * MICROSECOND) / peak_flops_per_s).to_numpy(np.float64)
        off = np.abs(table[share].to_numpy(np.float64) / expected - 1) > MFU_TOLERANCE
    return off, "mfu does not follow from shape and latency"


def _launch_bound(table: pd.DataFrame) -> Fault:
    bad: NDArray[np.bool_] = np.zeros(len(table), bool)
    latency = table["latency_us"].to_numpy(np.float64)
    context = table["kv_len"].to_numpy(np.float64)
    for places in table.groupby(["dtype", "kv_dtype", "batch_size"]).indices.values():
        rising = places[np.argsort(context[places], kind="stable")]
        later = np.minimum.accumulate(latency[rising][::-1])[::-1]
        bad[rising] = latency[rising] > SLOWER_THAN_LONGER * later
    return bad, "slower than the same batch with more context: dominated by its launch"


FAMILIES = {
    "grouped_gemm": _grouped_gemm,
    "gemm": _gemm,
    "mha": _attention,
    "mla": _attention,
    "dsa": _sparse,
    "gdn": _unitless,
}
