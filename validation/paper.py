"""MoESD (arXiv 2505.19645): its published speedups, its ten-parameter model, the shapes of its figures."""

from __future__ import annotations

from pathlib import Path

from validation.checks import Check
from validation.paper_cells import cell_checks
from validation.paper_grid import grid_checks
from validation.paper_preset import preset_checks
from validation.paper_shapes import shape_checks


def checks(data: Path | None) -> list[Check]:  # noqa: ARG001  (the interface of every suite)
    """All of it; nothing is read from `data`."""
    return [*cell_checks(), *preset_checks(), *shape_checks(), *grid_checks()]
