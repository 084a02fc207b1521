"""Files that claim different cases but hold the same bytes: at most one of them is a measurement."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from sim.calibration.checks import Rejected, Trace, concat, frame


def read_distinct(paths: Iterable[Path], read: Callable[[Path], Trace]) -> Trace:
    """All `paths` through `read`, except files with the same bytes, of which none is used: which is real is not known.

    Raises:
        FileNotFoundError, ValueError: as `read`.
    """
    names = list(paths)
    first: dict[str, Path] = {}
    copies: dict[Path, Path] = {}
    for path in names:
        twin = first.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
        if twin != path:
            copies |= {path: twin, twin: path}
    return concat([_refused(path, copies[path]) if path in copies else read(path) for path in names])


def _refused(path: Path, twin: Path) -> Trace:
    reason = f"byte-identical to {twin}: at most one of them is a measurement"
    return Trace(frame(0, {}), (Rejected(str(path), reason, len(path.read_bytes().splitlines()) - 1, 0),))
