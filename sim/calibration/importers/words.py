"""Words of other people's files turned into ours; an unknown one is an error, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def translated(column: pd.Series[Any], words: Mapping[str, Any]) -> Any:
    """`column` with each word replaced, as an array.

    Raises:
        ValueError: a word that `words` lacks; the message names column, word and the known ones.
    """
    unknown = sorted(set(column.unique()) - set(words), key=str)
    if unknown:
        raise ValueError(f"{column.name} must be one of {', '.join(words)}, got {unknown[0]!r}")
    return column.map(words).to_numpy()


def known(word: str, words: Mapping[str, str], field: str) -> str:
    """`words[word]`.

    Raises:
        ValueError: `word` is not among `words`; the message opens with `field`.
    """
    if word not in words:
        raise ValueError(f"{field} must be one of {', '.join(words)}, got {word!r}")
    return words[word]
