"""From benchmarks of a server without SD: the deployment as it was served, and the stream it served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sim.advise.contest import Drafted
from sim.compare.drawn import drawn_requests
from sim.compare.measured import Measured
from sim.compare.reading import read_documents
from sim.compare.sources import read_measured
from sim.config import Experiment
from sim.request import Requests
from sim.run_fit.fit import RunFit, fit_run

MEASURED = {"tpot": "tpot_mean", "e2e": "e2e_mean", "throughput": "output_tokens_per_s"}
"""Figure of the advice -> metric of a fitted run."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A server as its benchmarks show it.

    Attributes:
        fit: its constants, and how well they predict the runs.
        requests: what the first run served.
        source: that run's file.
        predicted_by: the simulator that wrote it, where nothing was measured.
    """

    fit: RunFit
    requests: Requests
    source: str
    predicted_by: str

    @property
    def measured(self) -> dict[str, float]:
        """Figures of the first run as measured; what the file does not state is left out."""
        after = self.fit.runs[0].after
        return {name: after[metric].measured for name, metric in MEASURED.items() if metric in after}

    def drafted(self, drafted: Drafted) -> Drafted:
        """A drafter on this server."""
        own = self.fit.experiment
        served = replace(drafted.experiment, cost=own.cost, engine=own.engine, measured_step=own.measured_step)
        return replace(drafted, experiment=served)

    def notes(self) -> list[str]:
        """What the fit did, and how well it holds."""
        found = []
        for constant, unit, scale in ((self.fit.kernel_factor, "", 1.0), (self.fit.step_host_s, " ms", 1e3)):
            spread = "" if constant.error is None else f" +- {scale * constant.error:.2g}"
            note = f" ({constant.note})" if constant.note else ""
            found.append(
                f"Fitted on {self.source}: {constant.name} {scale * constant.value:.3g}{spread}{unit}, described as "
                f"{scale * constant.before:.3g}{unit}{note}"
            )
        held_out = self.fit.error()
        if held_out is not None:
            found.append(f"The runs that were not fitted are predicted to {held_out:.1%} on the mean")
        if self.predicted_by:
            found.append(f"The file holds a prediction and no measurement: {self.predicted_by}")
        return found


def served(experiment: Experiment, sources: Sequence[str], fitted: int = 0) -> Served:
    """Fit the deployment on its benchmarks.

    Args:
        experiment: the deployment as described; its workload counts only where a file states neither requests nor rate.
        sources: files of one deployment, each at a load of its own, without SD.
        fitted: how many of them are fitted on, from the first; 0 for the default of `fit_run`.

    Raises:
        ValueError: a file that cannot be read, or one measured with SD.
        InfeasibleError: the deployment cannot run.
    """
    runs = [_without_sd(source) for source in sources]
    plain = replace(experiment, speculation=None)
    fit = fit_run(plain, runs, fitted)
    first = runs[0]
    requests = first.requests() or drawn_requests(first, plain.seed) or plain.workload.requests(plain.seed)
    return Served(fit, requests, first.source, first.predicted_by)


def _without_sd(source: str) -> Measured:
    name, _, number = source.partition("#")
    if not Path(name).is_file():
        raise ValueError(f"run must name result files of a benchmark, got {name!r}: no such file")
    measured = read_measured(source)
    documents = read_documents(name)
    chosen = documents[int(number) - 1] if number and len(documents) > 1 else documents[0]
    speculative = sorted(key for key in chosen if key.startswith("spec_decode"))
    if speculative:
        raise ValueError(
            f"{source}: run must be a benchmark without SD, got one with {speculative[0]} = {chosen[speculative[0]]}; "
            "serve without --speculative-config and measure again"
        )
    return replace(measured, source=source)
