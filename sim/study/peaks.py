"""What a study found: of every case, the batch where SD gains most and the band around it."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from sim.study.table import Row


def peaks(rows: list[Row], axes: list[str]) -> list[dict[str, Any]]:
    """Per case its axes' values, `peak_batch`, `peak_speedup`, and the first and last batch of the band.

    The band is where the speedup reaches its maximum over the square root of 2; `crossover_batch` is the first batch
    behind the peak at which SD loses, None where there is none.
    """
    found = []
    for values, group in groupby(rows, key=lambda row: tuple(row[axis] for axis in axes)):
        case = list(group)
        best = max(case, key=lambda row: row["speedup"])
        band = [row["batch"] for row in case if row["speedup"] >= best["speedup"] / 2**0.5]
        lost = [row["batch"] for row in case if row["batch"] > best["batch"] and row["speedup"] < 1.0]
        found.append(
            dict(zip(axes, values, strict=True))
            | {
                "peak_batch": best["batch"],
                "peak_speedup": best["speedup"],
                "target_efficiency_at_peak": best["target_efficiency"],
                "band_first_batch": band[0],
                "band_last_batch": band[-1],
                "crossover_batch": lost[0] if lost else None,
            }
        )
    return found
