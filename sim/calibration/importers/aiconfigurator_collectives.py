"""AIConfigurator's tables of collectives (messages in elements) and of the experts' all-to-all (microseconds)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sim.calibration.importers.aiconfigurator_tables import Columns, dtypes, latency
from sim.calibration.importers.words import translated

if TYPE_CHECKING:
    import pandas as pd

ELEMENT_BYTES = {"half": 2, "bfloat16": 2, "int8": 1}
NCCL_OPS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}
MICROSECOND = 1e-6
GPUS_PER_NODE = 8


def custom_allreduce(table: pd.DataFrame) -> list[Columns]:
    """A framework's all-reduce inside one node; `graph` is empty where the table does not say."""
    kind = table["backend"] if "backend" in table else table["kernel_source"]
    graph = kind.str.rsplit("_", n=1).str[-1].map({"graph": True, "eager": False})
    columns = {"op": "all_reduce", "dtype": dtypes(table["allreduce_dtype"]), "graph": graph, "samples": None}
    return [{**columns, **_message(table, "allreduce_dtype"), "l2_flushed": None, **latency(table)}]


def nccl(table: pd.DataFrame) -> list[Columns]:
    """nccl-tests; `message_bytes` is the size it prints: for all_gather the gathered buffer."""
    columns = {"op": translated(table["op_name"], NCCL_OPS), "dtype": dtypes(table["nccl_dtype"])}
    asked = {"engine": "nccl", "graph": False, "samples": 60, "l2_flushed": None}  # nccl-tests, whoever launched it
    return [{**columns, **asked, **_message(table, "nccl_dtype"), **latency(table)}]


def _message(table: pd.DataFrame, dtype: str) -> Columns:
    size = translated(table[dtype], ELEMENT_BYTES)
    return {"gpus": table["num_gpus"], "message_bytes": table["message_size"].to_numpy() * size}


def moe_a2a(table: pd.DataFrame) -> list[Columns]:
    """DeepEP behind a framework; `tokens` are those of one rank, `latency` is in microseconds in this table."""
    columns = {
        **_a2a_shape(table, "topk", "num_tokens"),
        "op": translated(table["phase"], {"dispatch": "moe_dispatch", "combine": "moe_combine"}),
        "dtype": dtypes(table["comm_dtype"]),
        "expert_parallel": table["ep_size"],
        "gpus": table["ep_size"],
        "kernels": table["comm_backend"] + " sms=" + table["sms"].astype(str),
    }
    return [{**columns, "latency_s": table["latency"].to_numpy() * MICROSECOND}]


def deepep(time: str) -> Callable[[pd.DataFrame], list[Columns]]:
    """Tables with a dispatch and a combine time in each row; `time` is the columns' ending. Eight GPUs a node."""

    def read(table: pd.DataFrame) -> list[Columns]:
        shape = _a2a_shape(table, "num_topk", "num_token")
        gpus = GPUS_PER_NODE * table["node_num"]
        parts = []
        for phase in ("dispatch", "combine"):
            sms = f"{phase}_sms"
            kernels = "deepep_" + table["op_name"] + (" sms=" + table[sms].astype(str) if sms in table else "")
            seconds = table[f"{phase}_{time}"].to_numpy() * MICROSECOND
            parts.append(
                {**shape, "op": f"moe_{phase}", "dtype": "bf16", "expert_parallel": gpus, "gpus": gpus}
                | {"kernels": kernels, "latency_s": seconds}
            )
        return parts

    return read


def _a2a_shape(table: pd.DataFrame, per_token: str, tokens: str) -> Columns:
    return {
        "tokens": table[tokens],
        "hidden": table["hidden_size"],
        "experts": table["num_experts"],
        "experts_per_token": table[per_token],
        "samples": None,
        "l2_flushed": None,
    }
