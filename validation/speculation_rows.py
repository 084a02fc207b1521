"""Published speedups of SD (`measured/sd_speedups.csv`), and what of each row the catalogues can price."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

from sim import load_model
from sim.model import Model
from sim.speculation.draft import Drafter, DraftModel
from sim.speculation.eagle import Eagle
from sim.speculation.ngram import NGram
from sim.speculation.parallel import ParallelDraft

MEASURED = Path(__file__).parent / "measured"
HEAD_FFN = {"qwen3_30b_a3b": 6144, "qwen3_235b_a22b": 24576, "ling_flash_2": 14336, "llama4_scout": 32768}
"""Inner width of the published EAGLE-3 heads of MoE targets (github.com/sgl-project/SpecForge, configs/)."""
EAGLE3_VOCAB = 32000
ACCEPTED_IF_MATCHED = 0.5
"""Share of its drafts that an n-gram match gets accepted: assumed; it splits a length into matches and depth."""
OVERLAP = [0.381, 0.329, 0.301, 0.299]
"""Share of experts that tokens 1, 2, 3, 4 apart have in common (cohere.com/blog/mixture-of-experts-models-get-more-
from-speculative-decoding)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured speedup; empty or zero where the source does not say."""

    name: str
    kind: str
    model: str
    gpu: str
    tensor_parallel: int
    engine: str
    drafter: str
    precision: str
    dataset: str
    prompt_tokens: float
    output_tokens: float
    batch: float
    drafts: int
    depth: int
    top_k: int
    head: str
    length: float
    speedup: float
    grade: str
    source: int

    @property
    def tree(self) -> bool:
        """Whether the drafts form a tree."""
        return self.top_k > 1

    @property
    def pair(self) -> tuple[str, str, str, int, str]:
        """What shares an acceptance length."""
        return (self.model, self.drafter, self.engine, self.drafts, self.dataset)


def read_rows() -> list[Row]:
    """Every row, in the order of the file."""
    with (MEASURED / "sd_speedups.csv").open(newline="") as file:
        return [_row(record) for record in csv.DictReader(file)]


def sources() -> dict[int, str]:
    """URL of every source."""
    with (MEASURED / "sd_sources.csv").open(newline="") as file:
        return {int(record["source"]): record["url"] for record in csv.DictReader(file)}


def _row(record: dict[str, str]) -> Row:
    numbers = {
        name: float(record[name] or 0) for name in ("prompt_tokens", "output_tokens", "batch", "length", "speedup")
    }
    counts = {name: int(float(record[name] or 0)) for name in ("tensor_parallel", "drafts", "depth", "top_k", "source")}
    words = {name: record[name] for name in Row.__slots__ if name not in {*numbers, *counts}}
    row = Row(**words, **numbers, **counts)  # type: ignore[arg-type]
    if row.engine == "SGLang 0.5.9" and row.drafts > 3:  # the page names the nodes only, not the shape
        return replace(row, depth={6: 3, 21: 5}[row.drafts], top_k={6: 2, 21: 4}[row.drafts])
    return row


def target_of(row: Row) -> Model:
    """The target as served."""
    model = load_model(row.model, "model")
    return replace(model, weight_bytes=1.0) if "fp8" in (row.precision + row.name.lower()) else model


def drafter_of(row: Row, tree_host_s: float = 0.0) -> Drafter | None:
    """The drafter, None where the catalogue has none like it."""
    name = row.drafter
    if name.startswith("draft_model"):
        return DraftModel(model="qwen3_0_6b") if row.model.startswith("qwen3") else None
    if name == "ngram":
        return NGram(match_rate=1.0)
    if name == "dflash":
        return ParallelDraft(layers=5, features=5, block_tokens=16, block_only=True)
    if name not in {"eagle", "eagle2", "eagle3"}:
        return None
    return Eagle(
        version=3 if name == "eagle3" else 1,
        vocab=EAGLE3_VOCAB if name == "eagle3" else 0,
        ffn_width=HEAD_FFN.get(row.model, 0),
        top_k=max(1, row.top_k),
        nodes=row.drafts if row.tree else 0,
        host_s=tree_host_s if row.tree else 0.0,
    )


def depth_of(row: Row) -> int:
    """Draft length as the drafters take it: of a tree its depth."""
    return row.depth if row.tree else row.drafts


def left_out(row: Row) -> str:
    """Why a row cannot be priced, empty where it can."""
    missing = {
        "model not in the catalogue": not row.model,
        "GPU not in the catalogue or not stated": not row.gpu,
        "batch not stated": not row.batch,
        "draft length not stated": not row.drafts,
        "tensor parallelism not stated": not row.tensor_parallel,
        "tree without its shape": row.tree and not row.depth,
        "no clean baseline (grade C)": row.grade == "C",
    }
    for reason, applies in missing.items():
        if applies:
            return reason
    return "" if drafter_of(row) is not None else "drafter not modelled"
