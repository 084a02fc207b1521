"""Where constants come from, and the YAML file that keeps them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.calibration.checks import Trace, digest
from sim.cost.constants import Calibration
from sim.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

_DIGITS = 4
_ZERO = 1e-15
_LAST = ("error", "source", "fit")


@dataclass(frozen=True, slots=True)
class Sources:
    """Rows of one or more files, the files' digests, and what reading them set aside.

    Attributes:
        rows: usable rows of all files.
        tables: name of the file -> SHA-256.
        set_aside: reason -> rows.
    """

    rows: pd.DataFrame
    tables: dict[str, str]
    set_aside: dict[str, int]


def sources(files: Sequence[tuple[str, Path, Trace]]) -> Sources:
    """Put `(name, file, trace)` together.

    Raises:
        ValueError: no file.
    """
    import pandas as pd

    if not files:
        raise ValueError("calibration needs at least one file of measured kernels, got none")
    aside: Counter[str] = Counter()
    for _, _, trace in files:
        for rejected in trace.rejected:
            aside[rejected.reason] += rejected.rows
    rows = pd.concat([trace.rows for _, _, trace in files], ignore_index=True)
    return Sources(rows, {name: digest(path) for name, path, _ in files}, dict(aside))


def write_calibration(calibration: Calibration, path: Path, title: str) -> None:
    """Write the YAML that `sim.cost.constants.read_calibration` reads; `title` is its first comment line."""
    import yaml

    fields = {name: value for name, value in asdict(calibration).items() if value not in (None, "", {}, [])}
    body = yaml.safe_dump(_plain(fields), sort_keys=False, width=116, allow_unicode=True)
    text = (
        f"# {title}\n# Fitted by sim.calibration; error: mean absolute relative error on shape groups held out of the "
        f"fit (null: assumed).\n{body}"
    )
    write_whole(path, lambda target: target.write_text(text))


def _plain(value: Any) -> Any:
    """Nested fields with absent ones dropped, prose last and numbers rounded to what is known of them."""
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda item: _LAST.index(item[0]) if item[0] in _LAST else -1)
        return {key: _plain(inner) for key, inner in ordered if inner is not None and inner != {}}
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{_DIGITS}g}") if abs(value) > _ZERO else 0.0
    return value
