"""The main job: each model without and with speculation under one request stream, compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sim.bands import RunBands, run_bands
from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.files import write_whole
from sim.metrics.summary import speedup
from sim.result import Interrupted, Result
from sim.run import simulate
from sim.waterfall import waterfall


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of the same requests, and what could not run.

    Attributes:
        results: in order, each model without SD before with.
        infeasible: label of an experiment -> why it cannot run.
        bands: label -> errors of the run's figures, where they were asked for.
        not_run: labels of those that an interruption left out; the last result is partial where it came amid a run.
    """

    results: list[Result] = field(default_factory=list)
    infeasible: dict[str, str] = field(default_factory=dict)
    bands: dict[str, RunBands] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)

    @property
    def partial(self) -> bool:
        """Whether it was interrupted."""
        return bool(self.not_run) or any(result.partial for result in self.results)

    def summaries(self) -> dict[str, dict[str, Any]]:
        """Figures by label; those with SD hold `speedup` over the same model without, and why, where that ran."""
        summaries = {result.label: result.summary() for result in self.results}
        plain = {result.experiment.model.name: result for result in self.results if not result.experiment.drafts}
        for result in self.results:
            twin = plain.get(result.experiment.model.name)
            if result.experiment.drafts and twin is not None:
                why = waterfall(twin, result)
                found = {"speedup": speedup(summaries[twin.label], summaries[result.label])}
                summaries[result.label] |= found | {"waterfall": why.as_dict() if why is not None else {}}
        return {label: summary | self._bands(label, summary, plain) for label, summary in summaries.items()}

    def _bands(self, label: str, summary: dict[str, Any], plain: dict[str, Result]) -> dict[str, Any]:
        """The bands of a run's figures, and of its speedups over the same model without SD; empty without bands."""
        own = self.bands.get(label)
        if own is None:
            return {}
        ends, twin = own.ends(summary), plain.get(summary["model"])
        before = self.bands.get(twin.label) if twin is not None else None
        if before is not None and "speedup" in summary:
            ends["speedup"] = own.speedup(before, summary["speedup"])
        return {"bands": ends}

    def save(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Write `requests.parquet`, `steps.parquet`, `report.html` and, last, `summary.json`; returns the summaries."""
        import pandas as pd

        from sim.report.html import write_report

        folder.mkdir(parents=True, exist_ok=True)
        for name in ("requests", "steps"):
            frames = [getattr(r, f"{name}_frame")().assign(run=r.label) for r in self.results]
            if frames:
                frame = pd.concat(frames, ignore_index=True)
                frame["run"] = frame["run"].astype("category")
                write_whole(folder / f"{name}.parquet", partial(frame.to_parquet, index=False))
        summaries = self.summaries()
        if self.results:
            bands = {label: summary["bands"] for label, summary in summaries.items() if "bands" in summary}
            write_report(self.results, folder / "report.html", bands=bands)
        content = {
            "partial": self.partial,
            "runs": summaries,
            "infeasible": self.infeasible,
            "not_run": self.not_run,
        }
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        write_whole(folder / "summary.json", lambda path: path.write_text(text))
        return summaries


def twins(experiment: Experiment) -> list[Experiment]:
    """The experiment without speculation and, if it has any, with."""
    plain = replace(experiment, speculation=None)
    return [plain] if experiment.speculation is None else [plain, experiment]


def compare(
    experiments: Iterable[Experiment], started: Callable[[str], None] | None = None, *, bands: bool = False
) -> Comparison:
    """Run every experiment; one that does not fit is noted, not fatal. `started` hears each label before.

    With `bands`, every run is simulated again under its expected errors, once or twice.
    Ctrl-C ends it with what is done.
    """
    comparison, left = Comparison(), list(experiments)
    try:
        while left:
            if started is not None:
                started(left[0].label)
            try:
                comparison.results.append(simulate(left[0]))
            except InfeasibleError as error:
                comparison.infeasible[left[0].label] = str(error)
            del left[0]
    except Interrupted as interruption:
        comparison.results.append(interruption.result)
        del left[0]
        comparison.not_run.extend(experiment.label for experiment in left)
    except KeyboardInterrupt:
        comparison.not_run.extend(experiment.label for experiment in left)
    if bands and not comparison.partial:
        _add_bands(comparison, started)
    return comparison


def _add_bands(comparison: Comparison, started: Callable[[str], None] | None) -> None:
    """The bands of every run; Ctrl-C leaves out those that are not done."""
    try:
        for result in comparison.results:
            if started is not None:
                started(f"errors of {result.label}")
            comparison.bands[result.label] = run_bands(result)
    except KeyboardInterrupt:
        return
