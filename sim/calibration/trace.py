"""The kernel trace: one tidy Parquet table, one row per timed case (`docs/kernel_traces.md`).

SI units; a shape column that an op does not use is empty. Shapes are those of one GPU unless the column says otherwise:
heads, n and k after sharding, but `expert_width` and `experts` of the whole layer beside the degrees that shard them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sim.files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

STRING_COLUMNS = (
    "gpu", "engine", "engine_version", "dtype", "op", "layer", "routing", "kv_dtype", "model", "drafter", "kernels",
    "source", "status",
)  # fmt: skip
INTEGER_COLUMNS = (
    "m", "n", "k", "tokens", "hidden", "vocabulary", "experts", "experts_per_token", "expert_width", "tensor_parallel",
    "expert_parallel", "batch", "width", "context_tokens", "chunk_tokens", "chunk_context_tokens", "long_sequences",
    "long_context_tokens", "heads", "kv_heads", "head_dim", "window_tokens", "gpus", "gpus_per_node", "message_bytes",
    "layers", "samples", "source_row",
)  # fmt: skip
FLOAT_COLUMNS = ("latency_s", "spread_s", "distinct_experts", "routed_tokens")
BOOLEAN_COLUMNS = ("gated", "graph", "l2_flushed")
COLUMNS = STRING_COLUMNS + INTEGER_COLUMNS + FLOAT_COLUMNS + BOOLEAN_COLUMNS

MEASUREMENT_COLUMNS = ("latency_s", "spread_s", "samples", "status", "source", "source_row")
"""What was seen and where; all other columns say what was timed: rows that agree in those are one case."""

DTYPES = (
    "fp32", "fp16", "bf16", "fp8", "fp8_block", "int8", "int8_weight_only", "int4_weight_only", "mxfp4_weight_only",
    "nvfp4",
)  # fmt: skip
STATUSES = ("ok", "out_of_memory", "failed")

_HEADS = ("heads", "kv_heads", "head_dim", "kv_dtype")
_SEQUENCES = ("batch", "width", "context_tokens")
_EXPERTS = ("tokens", "hidden", "experts", "experts_per_token", "expert_width", "tensor_parallel", "expert_parallel")
_STEP = ("model", "layers", "tensor_parallel", *_SEQUENCES)
_A2A = ("tokens", "hidden", "experts", "experts_per_token", "expert_parallel")

OPS: dict[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "grouped_gemm": ("tokens", "n", "k", "experts", "distinct_experts"),
    "experts": (*_EXPERTS, "routing", "distinct_experts"),
    "moe_block": (*_EXPERTS, "routing", "distinct_experts"),
    "attention_prefill": (*_SEQUENCES, *_HEADS, "window_tokens"),
    "attention_decode": (*_SEQUENCES, *_HEADS, "window_tokens"),
    "attention_mixed": (*_SEQUENCES, *_HEADS, "window_tokens", "chunk_tokens", "chunk_context_tokens"),
    "attention_skewed": (
        *_SEQUENCES,
        *_HEADS,
        "window_tokens",
        "chunk_tokens",
        "chunk_context_tokens",
        "long_sequences",
        "long_context_tokens",
    ),
    "mla_prefill": (*_SEQUENCES, "heads", "kv_dtype"),
    "mla_decode": (*_SEQUENCES, "heads", "kv_dtype"),
    "mla_prefill_module": (*_SEQUENCES, "heads", "kv_dtype"),
    "mla_decode_module": (*_SEQUENCES, "heads", "kv_dtype"),
    "sparse_attention": (*_SEQUENCES, "layer"),
    "sparse_attention_module": (*_SEQUENCES, "layer", "heads", "kv_dtype"),
    "linear_attention": ("batch", "width", "heads", "head_dim"),
    "all_reduce": ("gpus", "message_bytes"),
    "all_gather": ("gpus", "message_bytes"),
    "reduce_scatter": ("gpus", "message_bytes"),
    "all_to_all": ("gpus", "message_bytes"),
    "send_recv": ("gpus", "message_bytes"),
    "moe_dispatch": _A2A,
    "moe_combine": _A2A,
    "norm": ("tokens", "hidden"),
    "activation": ("tokens", "hidden"),
    "embedding": ("tokens", "hidden"),
    "rope": ("tokens", "heads", "head_dim"),
    "lm_head": ("tokens", "hidden", "vocabulary"),
    "sampling": ("batch", "vocabulary"),
    "rejection": ("batch", "width", "vocabulary"),
    "layer": ("layer", "tokens", "model", "tensor_parallel"),
    "kernel": ("kernels",),
    "target_step": _STEP,
    "draft_step": _STEP,
    "sd_round": (*_STEP, "drafter"),
}
"""Op -> the shape columns that it cannot do without."""


def schema() -> pa.Schema:
    """The columns and types of the Parquet file. A function, so that importing this module costs no pyarrow."""
    import pyarrow as pa

    types = [
        *((name, pa.string()) for name in STRING_COLUMNS),
        *((name, pa.int64()) for name in INTEGER_COLUMNS),
        *((name, pa.float64()) for name in FLOAT_COLUMNS),
        *((name, pa.bool_()) for name in BOOLEAN_COLUMNS),
    ]
    return pa.schema(types)


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Write `rows` (column -> value; absent = empty) as the kernel trace `path`; needs pyarrow alone.

    Raises:
        ValueError: a column that the format does not have, or a value of another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = _table(path, rows)
    assert isinstance(table, pa.Table)
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def append_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Add `rows` behind those in `path`, which appears when it was not there. Costs a rewrite of the file.

    Raises:
        ValueError: as `write_rows`, or `path` is not a kernel trace.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [read_table(path)] if path.exists() else []
    table = pa.concat_tables([*tables, _table(path, rows)])
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def read_table(path: Path) -> pa.Table:
    """The kernel trace `path` as it stands, its columns checked but not its rows; see `checks.read` for those.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a Parquet file, or not these columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise FileNotFoundError(f"no kernel trace {path}")
    try:
        table = pq.read_table(path, partitioning=None)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error
    _refuse_columns(str(path), set(table.column_names), missing_too=True)
    try:
        return table.select(schema().names).cast(schema())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: a column has another type than the format: {str(error).splitlines()[0]}") from error


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame that an importer or `checks.read` gave as the kernel trace `path`.

    Raises:
        ValueError: its columns are not those of the format.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _refuse_columns(str(path), set(frame.columns), missing_too=True)
    table = pa.Table.from_pandas(frame[list(COLUMNS)], schema=schema(), preserve_index=False)
    write_whole(path, lambda temporary: pq.write_table(table.replace_schema_metadata(), temporary, compression="zstd"))


def _table(path: Path, rows: list[dict[str, object]]) -> pa.Table:
    import pyarrow as pa

    for number, row in enumerate(rows):
        _refuse_columns(f"{path}: row {number}", set(row), missing_too=False)
    try:
        return pa.Table.from_pylist(rows, schema=schema())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{path}: a value has another type than its column: {error}") from error


def _refuse_columns(where: str, found: set[str], *, missing_too: bool) -> None:
    unknown = sorted(found - set(COLUMNS))
    if unknown:
        raise ValueError(f"{where}: a kernel trace has no column {', '.join(unknown)}; known: {', '.join(COLUMNS)}")
    missing = sorted(set(COLUMNS) - found) if missing_too else []
    if missing:
        raise ValueError(f"{where}: not a kernel trace, it lacks the columns {', '.join(missing)}")
