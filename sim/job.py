"""The main job: each model without and with speculation under one request stream, compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.files import write_whole
from sim.metrics.summary import speedup
from sim.result import Result
from sim.run import simulate


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of the same requests, and what could not run.

    Attributes:
        results: in order, each model without SD before with.
        infeasible: label of an experiment -> why it cannot run.
    """

    results: list[Result] = field(default_factory=list)
    infeasible: dict[str, str] = field(default_factory=dict)

    def summaries(self) -> dict[str, dict[str, Any]]:
        """Figures by label; those with SD hold `speedup` over the same model without, where that ran."""
        summaries = {result.label: result.summary() for result in self.results}
        plain = {s["model"]: s for s in summaries.values() if not s["drafts"]}
        for summary in summaries.values():
            if summary["drafts"] and summary["model"] in plain:
                summary["speedup"] = speedup(plain[summary["model"]], summary)
        return summaries

    def save(self, folder: Path) -> None:
        """Write `requests.parquet`, `steps.parquet`, `report.html` and, last, `summary.json`."""
        import pandas as pd

        from sim.report.html import write_report

        folder.mkdir(parents=True, exist_ok=True)
        for name in ("requests", "steps"):
            frames = [getattr(r, f"{name}_frame")().assign(run=r.label) for r in self.results]
            if frames:
                frame = pd.concat(frames, ignore_index=True)
                frame["run"] = frame["run"].astype("category")
                write_whole(folder / f"{name}.parquet", partial(frame.to_parquet, index=False))
        if self.results:
            write_report(self.results, folder / "report.html")
        content = {"runs": self.summaries(), "infeasible": self.infeasible}
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        write_whole(folder / "summary.json", lambda path: path.write_text(text))


def twins(experiment: Experiment) -> list[Experiment]:
    """The experiment without speculation and, if it has any, with."""
    plain = replace(experiment, speculation=None)
    return [plain] if experiment.speculation is None else [plain, experiment]


def compare(experiments: Iterable[Experiment], started: Callable[[str], None] | None = None) -> Comparison:
    """Run every experiment; one that does not fit is noted, not fatal. `started` hears each label before."""
    comparison = Comparison()
    for experiment in experiments:
        if started is not None:
            started(experiment.label)
        try:
            comparison.results.append(simulate(experiment))
        except InfeasibleError as error:
            comparison.infeasible[experiment.label] = str(error)
    return comparison
