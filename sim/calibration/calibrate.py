"""Kernel traces in; constants, a table and a page of measured against predicted out.

`moesd-sim calibrate traces=mine.parquet[,more.parquet] [gpu=...] [engine=...] [out=FOLDER] [kin=...]`
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.calibration.calibration import Calibrated, fit_calibration
from sim.calibration.checks import load
from sim.calibration.fit_family import FamilyFit
from sim.calibration.page import write_calibration_page
from sim.calibration.provenance import Sources, sources, write_calibration
from sim.calibration.tables import write_kernel_table
from sim.cost.constants import read_constants
from sim.cost.kinship import nearest_name, with_latent_kin
from sim.hardware import read_gpu

_WORDS = ("traces", "gpu", "engine", "out", "kin")


@dataclass(frozen=True, slots=True)
class Written:
    """The calibration and its files: constants, table, page."""

    calibrated: Calibrated
    yaml: Path
    table: Path
    page: Path


def calibrate(traces: Sequence[Path], gpu: str = "", engine: str = "", out: Path = Path(), kin: str = "") -> Written:
    """Fit all families that `traces` have enough rows for and write `<gpu>_<engine>.yaml`, `.parquet` and `.html`.

    Args:
        traces: kernel traces (`docs/kernel_traces.md`); rows that cannot be used are set aside and counted.
        gpu: whose rows; may be left out where the traces hold one GPU.
        engine: likewise.
        out: folder to write into.
        kin: bundled calibration that supplies what the traces do not cover; default the nearest.

    Raises:
        FileNotFoundError: no such trace.
        ValueError: not a trace, several GPUs or engines and none named, or too few rows for any family.
    """
    found = sources([(path.name, path, load(path)) for path in traces])
    gpu = _one_of(found, "gpu", gpu)
    engine = _one_of(found, "engine", engine)
    rows = found.rows[((found.rows["gpu"] == gpu) & (found.rows["engine"] == engine)).to_numpy(bool)]
    spec = read_gpu(gpu)
    kin = kin or nearest_name(spec, engine)
    one = fit_calibration(
        Sources(rows.reset_index(drop=True), found.tables, found.set_aside), spec, engine,
        f"kernel traces {', '.join(found.tables)}", kin=kin,
        base=with_latent_kin(read_constants(kin), spec), eager=True,
    )  # fmt: skip
    stem = out / f"{gpu}_{engine}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("yaml", "parquet", "html")]
    write_calibration(one.calibration, paths[0], f"Constants of the cost model: {gpu} under {engine}.")
    write_kernel_table(one.fits, paths[1])
    write_calibration_page(one, paths[2])
    return Written(one, *paths)


def main(argv: Sequence[str]) -> int:
    """`key=value` words as above; prints what was fitted and where it lies. Exit status 2 for words it cannot use."""
    try:
        words = _words(argv)
        traces = [Path(name) for name in words.pop("traces").split(",") if name]
        written = calibrate(traces, out=Path(words.pop("out", ".")), **words)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"moesd-sim calibrate: {error}\n")
        return 2
    sys.stdout.write(report(written))
    return 0


def report(written: Written) -> str:
    """What was fitted and how well, what was set aside, and how to use it: a line each."""
    one = written.calibrated
    lines = [f"{name}: {_quality(fit)}" for name, fit in one.fits.items()]
    lines += [f"{name}: left to {one.calibration.kin}: {reason}" for name, reason in one.skipped.items()]
    lines += [f"set aside: {rows} rows: {reason}" for reason, rows in one.calibration.set_aside.items()]
    lines.append(f"use it with: cost=fitted cost.path={written.yaml}   or: cost=table cost.path={written.table}")
    lines.append(f"measured against predicted: {written.page}")
    return "".join(f"{line}\n" for line in lines)


def _quality(fit: FamilyFit) -> str:
    found = fit.efficiency.fit
    return f"{fit.error():.1%} held out ({found.rows} rows, {found.groups} shapes, noise {found.noise:.1%})"


def _words(argv: Sequence[str]) -> dict[str, str]:
    words: dict[str, str] = {}
    for word in argv:
        key, sign, value = word.partition("=")
        if key not in _WORDS or not sign:
            raise ValueError(f"words must be one of {', '.join(f'{name}=...' for name in _WORDS)}, got {word!r}")
        words[key] = value
    if not words.get("traces"):
        raise ValueError("traces must name at least one kernel trace: traces=a.parquet,b.parquet")
    return words


def _one_of(found: Sources, column: str, asked: str) -> str:
    held = sorted(found.rows[column].dropna().unique())
    if asked:
        if asked not in held:
            raise ValueError(f"{column} must be one of {', '.join(held)}, which the traces hold, got {asked!r}")
        return asked
    if len(held) != 1:
        raise ValueError(f"{column} must be named: the traces hold {', '.join(held) or 'no usable row'}")
    return str(held[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
