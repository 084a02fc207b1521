"""Words of other people's files turned into ours; an unknown one is an error or is set aside, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

GPUS = {
    "NVIDIA A100-SXM4-40GB": "a100_40gb_sxm",
    "NVIDIA A100-SXM4-80GB": "a100_80gb_sxm",
    "NVIDIA A10G": "a10g",
    "NVIDIA A30": "a30",
    "NVIDIA A40": "a40",
    "NVIDIA A800-SXM4-80GB": "a800_80gb_sxm",
    "NVIDIA B200": "b200",
    "NVIDIA GeForce RTX 3090": "rtx3090",
    "NVIDIA GeForce RTX 4090": "rtx4090",
    "NVIDIA H100 80GB HBM3": "h100_sxm",
    "NVIDIA H100 PCIe": "h100_pcie",
    "NVIDIA H20": "h20",
    "NVIDIA H200": "h200_sxm",
    "NVIDIA H800": "h800_sxm",
    "NVIDIA L4": "l4",
    "NVIDIA L40": "l40",
    "NVIDIA L40S": "l40s",
    "NVIDIA RTX A6000": "a6000",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx_pro_6000",
}
"""Name that the driver reports -> file in `hardware_specs/gpu`."""


def gpu_name(device: str) -> str:
    """The catalogue name of what the driver calls `device`; one that is not known stays, and its rows are set aside."""
    return GPUS.get(device, device)


def translated(column: pd.Series[Any], words: Mapping[str, Any]) -> Any:
    """`column` with each word replaced, as an array.

    Raises:
        ValueError: a word that `words` lacks; the message names column, row, word and the known ones.
    """
    unknown = ~column.isin(list(words))
    if unknown.any():
        row = int(unknown.to_numpy().argmax())
        raise ValueError(f"row {row}: {column.name} must be one of {', '.join(words)}, got {column.iloc[row]!r}")
    return column.map(words).to_numpy()


def known(word: str, words: Mapping[str, str], field: str) -> str:
    """`words[word]`.

    Raises:
        ValueError: `word` is not among `words`; the message opens with `field`.
    """
    if word not in words:
        raise ValueError(f"{field} must be one of {', '.join(words)}, got {word!r}")
    return words[word]
