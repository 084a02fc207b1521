"""Numbers as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Iterable

MISSING = "–"


def text(value: float | None, decimals: int | None = None) -> str:
    """About three significant digits or so many decimals, thousands set apart; a dash for what is missing."""
    if value is None or not math.isfinite(value):
        return MISSING
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}" if size >= 0.1 or value == 0 else f"{value:.2g}"


def latency_unit(seconds: Iterable[float]) -> tuple[str, float]:
    """Unit that suits the largest of these durations, and how many of it make a second."""
    return ("ms", 1e3) if max(seconds, default=0.0) < 10.0 else ("s", 1.0)


def clock_unit(seconds: float) -> tuple[str, float]:
    """Unit for an axis of this length, and how many of it make a second."""
    if seconds > 3 * 3600:
        return "h", 1 / 3600
    return ("min", 1 / 60) if seconds > 600 else ("s", 1.0)


def duration(seconds: float) -> str:
    """A duration with its unit."""
    if seconds >= 1:
        unit, per_s = clock_unit(seconds)
        return f"{text(seconds * per_s)} {unit}"
    return f"{text(seconds * 1e3)} ms"
