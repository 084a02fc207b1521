"""What makes a row of a kernel trace unusable, as masks over its rows with the reason in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.calibration.limits import LIMITED, WEIGHT_BYTES, complete, least_seconds
from sim.calibration.trace import COLUMNS, DTYPES, INTEGER_COLUMNS, MEASUREMENT_COLUMNS, OPS, STATUSES
from sim.data import data_dir, names_in
from sim.hardware import read_gpu

if TYPE_CHECKING:
    import pandas as pd

Fault = tuple[NDArray[np.bool_], str]
"""Rows and what is wrong with them."""

DUPLICATE_TOLERANCE = 0.25
"""Timings of one case may differ by this share of the smaller; two collections of a table by 2 to 6 % on average."""

SPEED_MARGIN = 1.1
"""A case may beat the published peaks by this factor (clocks above the rated boost); beyond it was not measured."""

MAY_BE_ZERO = (
    "context_tokens", "chunk_tokens", "chunk_context_tokens", "long_sequences", "long_context_tokens", "window_tokens",
)  # fmt: skip


def faults(rows: pd.DataFrame) -> list[Fault]:
    """Every fault of single rows: unknown words, impossible shapes and latencies, cases faster than the GPU."""
    return [*_of_words(rows), *_of_figures(rows), *_of_speed(rows)]


def _of_speed(rows: pd.DataFrame) -> list[Fault]:
    """Cases more than `SPEED_MARGIN` faster than the GPU's peaks allow."""
    found: list[Fault] = []
    known = names_in(data_dir("hardware_specs") / "gpu")
    for op in LIMITED:
        places = np.flatnonzero(complete(rows, op))
        if not places.size:
            continue
        part = rows.iloc[places]
        latency = part["latency_s"].to_numpy()
        for gpu, dtype in part[["gpu", "dtype"]].drop_duplicates().itertuples(index=False):
            if gpu not in known or dtype not in WEIGHT_BYTES:
                continue
            at = np.flatnonzero(((part["gpu"] == gpu) & (part["dtype"] == dtype)).to_numpy(bool))
            least = least_seconds(part.iloc[at], op, dtype, read_gpu(gpu)) / SPEED_MARGIN
            bad = np.zeros(len(rows), bool)
            bad[places[at]] = (latency[at] > 0) & (latency[at] < least)
            found.append((bad, f"{op} faster than the peaks of {gpu} allow"))
    return found


def _of_words(rows: pd.DataFrame) -> list[Fault]:
    known = {
        "gpu": names_in(data_dir("hardware_specs") / "gpu"),
        "op": list(OPS),
        "status": list(STATUSES),
        "dtype": list(DTYPES),
        "kv_dtype": list(DTYPES),
    }
    found: list[Fault] = []
    for column, words in known.items():
        values = rows[column]
        optional = column == "kv_dtype"
        hint = "no file in hardware_specs/gpu bears that name" if column == "gpu" else f"known: {', '.join(words)}"
        if not optional:
            found.append((values.isna().to_numpy(bool), f"{column} is empty; {hint}"))
        unknown = [word for word in values.dropna().unique() if word not in words]
        found += [((values == word).to_numpy(bool), f"{column} is {word!r}; {hint}") for word in unknown]
    return found


def _of_figures(rows: pd.DataFrame) -> list[Fault]:
    timed = (rows["status"] == "ok").to_numpy(bool)
    latency = rows["latency_s"].to_numpy()
    found = [
        (timed & ~np.isfinite(latency), "latency_s is not a number"),
        (timed & (latency <= 0), "latency_s must be > 0"),
        (~timed & ~np.isnan(latency), "a case that did not run has a latency_s"),
    ]
    ops = rows["op"]
    for op, needed in OPS.items():
        of_op = (ops == op).to_numpy(bool)
        if not of_op.any():
            continue
        for column in needed:
            values = rows[column]
            found.append((of_op & values.isna().to_numpy(bool), f"{column} is empty; {op} needs it"))
            if column in INTEGER_COLUMNS:
                least = 0 if column in MAY_BE_ZERO else 1
                low = (values < least).to_numpy(bool, na_value=False)
                found.append((of_op & low, f"{column} of {op} must be >= {least}"))
    return found


def disagreeing(rows: pd.DataFrame, sound: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows among the `sound`, timed ones whose case was timed twice with different results."""
    from pandas.util import hash_pandas_object

    bad = np.zeros(len(rows), bool)
    timed = np.flatnonzero(sound & (rows["status"] == "ok").to_numpy(bool))
    keys = [name for name in COLUMNS if name not in MEASUREMENT_COLUMNS and rows[name].notna().any()]
    cases = hash_pandas_object(rows[keys].iloc[timed], index=False).to_numpy()
    _, case, count = np.unique(cases, return_inverse=True, return_counts=True)
    repeated = count[case] > 1
    if not repeated.any():
        return bad
    latency = rows["latency_s"].to_numpy()[timed]
    low, high = np.full(len(count), np.inf), np.zeros(len(count))
    np.minimum.at(low, case[repeated], latency[repeated])
    np.maximum.at(high, case[repeated], latency[repeated])
    bad[timed] = high[case] > (1 + DUPLICATE_TOLERANCE) * low[case]
    return bad
