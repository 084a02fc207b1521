"""Advice as plain data: the content of `advice.json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sim.advise.advice import Advice, DrafterReport
from sim.advise.contest import Entry
from sim.advise.crossover import GainCurve
from sim.advise.exports import sglang_flags, vllm_config
from sim.advise.static import speculation_of
from sim.advise.verdict import notes, verdict
from sim.metrics.bands import LEVEL
from sim.speculation.batch_length import TableByBatch


def as_dict(advice: Advice) -> dict[str, Any]:
    """Everything that the table and the page show; names carry their units."""
    return {
        "verdict": verdict(advice),
        "speculation": advice.advised is not None if advice.claims else None,
        "load": asdict(advice.load),
        "context_tokens": advice.context_tokens,
        "objective": advice.contest.objective,
        "band_level": LEVEL,
        "advised": None if advice.advised is None else _entry(advice, advice.advised),
        "candidates": [_entry(advice, entry) for entry in advice.contest.entries],
        "infeasible": advice.contest.infeasible,
        "figures": {
            label: {name: asdict(band) for name, band in bands.items()} for label, bands in advice.figures.items()
        },
        "gain_by_load": [_curve(curve) for curve in advice.curves],
        "drafters": {report.drafted.name: _report(report) for report in advice.drafters},
        "vllm_speculative_config": exported_vllm(advice),
        "sglang_flags": exported_sglang(advice),
        "notes": notes(advice),
    }


def exported_vllm(advice: Advice) -> dict[str, Any] | None:
    """The JSON of `--speculative-config` for the advised candidate; None for no SD or a drafter vLLM lacks."""
    if advice.advised is None:
        return None
    experiment = advice.advised.result.experiment
    return vllm_config(speculation_of(experiment).drafter, advice.advised.length, experiment.model)


def exported_sglang(advice: Advice) -> list[str] | None:
    """SGLang's flags for the advised drafter at its best fixed length, where that pays; None else."""
    if advice.advised is None:
        return None
    name, objective = advice.advised.drafted.name, advice.contest.objective
    fixed = [
        entry for entry in advice.contest.entries
        if entry.drafted.name == name and not isinstance(entry.length, TableByBatch)
    ]  # fmt: skip
    best = max(fixed, key=lambda entry: entry.gain[objective])
    if best.gain[objective] <= 1.0:
        return None
    experiment = best.result.experiment
    return sglang_flags(speculation_of(experiment).drafter, best.length.most_drafts, experiment.model)


def _entry(advice: Advice, entry: Entry) -> dict[str, Any]:
    length = entry.length
    ranges = [list(row) for row in length.ranges] if isinstance(length, TableByBatch) else None
    bands = advice.gains.get(entry.label, {})
    return {
        "label": entry.label,
        "drafter": entry.drafted.name,
        "drafts": length.most_drafts,
        "ranges": ranges,
        "gain": entry.gain,
        "gain_band": {name: [band.low, band.high] for name, band in bands.items()},
    }


def _curve(curve: GainCurve) -> dict[str, Any]:
    return {
        "label": curve.label,
        "load": curve.loads[0].kind,
        "loads": [load.value for load in curve.loads],
        "gains": list(curve.gains),
        "crossings": [{"at": found.at.value, "turns": found.turns} for found in curve.crossings],
        "turns_negative_at": None if curve.turns_negative is None else curve.turns_negative.value,
    }


def _report(report: DrafterReport) -> dict[str, Any]:
    surfaces = report.surfaces
    return {
        "acceptance": report.drafted.acceptance_source if report.drafted.acceptance_known else "unknown",
        "infeasible": report.infeasible or None,
        "memory": None if report.memory is None else asdict(report.memory),
        "surfaces": None if surfaces is None else asdict(surfaces),
        "pays_at_batch": [[found.first, found.last] for found in report.ranges if found.pays],
        "needed": [
            {"drafts": n.drafts, "rate": n.rate, "acceptance_length": n.length, "gain_if_all_accepted": n.most_gain}
            for n in report.needed
        ],
    }
