"""What the report says first: one finding per pair of runs, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sim.config import Experiment
from sim.hardware import resolve
from sim.report import numbers
from sim.report.runs import Run
from sim.report.tables import swatch


def findings(runs: Sequence[Run]) -> str:
    """One card per run with SD, or per run where no run has SD."""
    with_sd = [run for run in runs if run.result.experiment.drafts]
    return "".join(_card(run) for run in with_sd or runs)


def setup(runs: Sequence[Run]) -> str:
    """How the figures came about: simulated, on what, from which constants."""
    lines = dict.fromkeys(_deployment(run) for run in runs)
    notes = dict.fromkeys(note for run in runs for note in _notes(run))
    return (
        '<p class="predicted"><strong>Predicted, not measured.</strong> Every figure on this page comes from a '
        f"simulation. Step times rest on {' '.join(escape(note) for note in notes)}</p>"
        f'<p class="note">{"<br>".join(escape(line) for line in lines)}</p>{_interrupted(runs)}'
    )


def finding(run: Run) -> str:
    """The run's result in a sentence or two, as plain text."""
    name, summary = run.result.experiment.model.name, run.summary
    tpot = summary["tpot_s"].get("mean")
    if not run.result.experiment.drafts:
        pace = f" and {numbers.duration(tpot)} per output token on the mean" if tpot is not None else ""
        rate = numbers.text(summary["throughput"]["output_tokens_per_s"])
        return f"Without SD {name} is predicted to give {rate} output tokens per second{pace}."
    draft = run.result.cost.draft
    source = f" from {draft.model.name}" if draft is not None else ""
    opening = f"SD with {run.result.experiment.drafts} drafts{source}"
    if run.speedup is None or run.plain is None:
        pace = f"{numbers.duration(tpot)} per output token" if tpot is not None else "no TPOT (one token per request)"
        alone = "no run without SD to compare with"
        return f"{opening} gives {name} a predicted {pace} on the mean; {alone}.{_quality(run)}"
    factor, way = (run.speedup, "faster") if run.speedup >= 1 else (1 / run.speedup, "slower")
    before = run.plain["tpot_s"]["mean"]
    return (
        f"{opening} is predicted to make {name} {factor:.2f}× {way} in mean TPOT: {numbers.duration(tpot)} "
        f"instead of {numbers.duration(before)}. Median TTFT is {numbers.duration(summary['ttft_s']['p50'])} instead "
        f"of "
        f"{numbers.duration(run.plain['ttft_s']['p50'])}.{_band(run)}{_quality(run)}"
    )


def _band(run: Run) -> str:
    """The band of the speedup, as a sentence; empty without."""
    ends = run.bands.get("speedup", {}).get("tpot")
    if ends is None:
        return ""
    level = run.bands["level"]
    return f" The speedup lies between {ends[0]:.2f}× and {ends[1]:.2f}× with a probability of {level:.0%}."


def _interrupted(runs: Sequence[Run]) -> str:
    """Which runs are not whole."""
    return "".join(
        f'<p class="predicted"><strong>Partial.</strong> {escape(run.label)} was interrupted when '
        f"{run.summary['finished']:,} of {run.summary['requests']:,} requests had finished.</p>"
        for run in runs
        if run.result.partial
    )


def _quality(run: Run) -> str:
    parts = []
    if run.acceptance_length is not None:
        parts.append(f"acceptance length {run.acceptance_length:.2f}")
    if run.target_efficiency is not None:
        parts.append(f"target efficiency {run.target_efficiency:.2f}")
    return f" {', '.join(parts).capitalize()}." if parts else ""


def _card(run: Run) -> str:
    big = f"{run.speedup:.2f}×" if run.speedup is not None else numbers.MISSING
    figure = f'<p class="factor" style="color:var({run.colour})">{big}</p>' if run.result.experiment.drafts else ""
    return f"<article>{figure}<h2>{swatch(run)}{escape(run.label)}</h2><p>{escape(finding(run))}</p></article>"


def _deployment(run: Run) -> str:
    experiment, requests = run.result.experiment, run.result.requests
    cluster = experiment.cluster
    replicas = f", {cluster.replicas} replicas" if cluster.replicas > 1 else ""
    return (
        f"{len(requests):,} requests, mean prompt {numbers.text(float(requests.prompt_tokens.mean()))} and output "
        f"{numbers.text(float(requests.output_tokens.mean()))} tokens; {cluster.gpus} × {cluster.gpu}, "
        f"{cluster.parallelism}{replicas}{_others(experiment)}; "
        f"engine {experiment.engine.name}; seed {experiment.seed}."
    )


def _others(experiment: Experiment) -> str:
    """Replicas of other kinds."""
    settings = experiment.disaggregation
    if settings is None:
        return "".join(
            f", and {other.gpus} × {other.gpu} ({other.replicas} of {other.parallelism})"
            for other in experiment.further_clusters
        )
    pool = settings.prefill_side(experiment.cluster)
    return f", after {pool.gpus} × {pool.gpu} that prefill ({pool.replicas} of {pool.parallelism}, {settings.link})"


def _notes(run: Run) -> list[str]:
    """Where the step times of every kind of replica come from."""
    experiment, notes = run.result.experiment, []
    for cluster in experiment.clusters:
        gpu, link = resolve(cluster)
        note = experiment.cost.note(gpu, link if cluster.gpus_per_replica > 1 else None).strip()
        notes.append(note if note.endswith(".") else f"{note}.")
    return notes
