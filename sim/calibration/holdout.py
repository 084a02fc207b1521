"""Held-out error: whole shape groups, a third of them at a time, chosen by a hash of their shape."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDS = 3
"""A third is held out; each third in turn, so that every row is predicted once by a fit that never saw its group."""

Floats = NDArray[np.float64]


def fold_of(keys: Sequence[tuple[Any, ...]]) -> NDArray[np.int64]:
    """Per row the third its group lies in: groups in order of the SHA-256 of their key, dealt out in turn."""
    order = {key: place for place, key in enumerate(sorted(set(keys), key=_digest))}
    return np.array([order[key] % FOLDS for key in keys], dtype=np.int64)


def held_out(folds: NDArray[np.int64], fit_without: Callable[[NDArray[np.bool_]], Callable[[], Floats]]) -> Floats:
    """Predictions for every row by the fit on the rows of the other folds.

    Args:
        folds: fold per row.
        fit_without: rows to fit on -> a function that predicts all rows.
    """
    predicted = np.full(len(folds), np.nan)
    for fold in np.unique(folds):
        outside = folds == fold
        predicted[outside] = fit_without(~outside)()[outside]
    return predicted


def every_fifth(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows whose size is a fifth, tenth, ... of the distinct sizes in order, the smallest and largest never."""
    sizes = np.unique(values)
    chosen = sizes[1:-1][3::5]
    mask: NDArray[np.bool_] = np.isin(values, chosen)
    return mask


def every_fifth_of_grid(outer: NDArray[Any], inner: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows whose pair of sizes is a fifth, tenth, ... of the distinct pairs in order."""
    pairs = np.unique(np.stack([outer, inner]), axis=1, return_inverse=True)[1].ravel()
    mask: NDArray[np.bool_] = pairs % 5 == 3
    return mask


def on_edge(groups: NDArray[Any], outer: NDArray[Any], inner: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows with the smallest or largest size along either axis in their group."""
    edge = np.zeros(len(groups), bool)
    for line, size in ((outer, inner), (inner, outer)):
        order = np.lexsort((size, line, groups))
        first = np.r_[True, (np.diff(groups[order]) != 0) | (np.diff(line[order]) != 0)]
        edge[order[first]] = True
        edge[order[np.r_[first[1:], True]]] = True
    return edge


def _digest(key: tuple[Any, ...]) -> str:
    text = "/".join(f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value) for value in key)
    return hashlib.sha256(text.encode()).hexdigest()
