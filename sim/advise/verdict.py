"""The advice in a few sentences, and the notes that go with it."""

from __future__ import annotations

from sim.advise.advice import Advice, DrafterReport
from sim.advise.bands import Band
from sim.advise.contest import drafts_in_words
from sim.metrics.bands import LEVEL
from sim.speculation.batch_length import TableByBatch

FIGURES = {"e2e": "mean end-to-end latency", "tpot": "mean time per output token", "throughput": "output throughput"}


def verdict(advice: Advice) -> str:
    """SD on or off and why, in a sentence or two."""
    shown, objective = advice.shown, advice.contest.objective
    if shown is None:
        return _unclaimed(advice)
    gain = advice.gains[shown.label][objective]
    where = f"at {advice.load}, {_band(gain)} in {FIGURES[objective]}"
    if advice.advised is None:
        return f"SD off: the best of what was tried ({shown.label}) is predicted to change it {where}."
    close = "; the band reaches below 1: measure both before you decide" if gain.low < 1.0 else ""
    return f"SD on with {shown.label}: predicted gain {where}{close}."


def crossover(advice: Advice) -> list[str]:
    """Where the gain of each simulated policy turns, a sentence each."""
    lines = []
    for curve in advice.curves:
        loads = f"{curve.loads[0]} to {curve.loads[-1]}"
        if not curve.crossings:
            side = "gains at every load" if curve.gains[0] > 1.0 else "loses at every load"
            lines.append(f"{curve.label}: {side} simulated ({loads})")
            continue
        turns = ", ".join(f"{crossing.turns} at {crossing.at}" for crossing in curve.crossings)
        lines.append(f"{curve.label}: turns {turns} (simulated {loads})")
    return lines


def paying(report: DrafterReport) -> str:
    """The batch sizes at which a drafter's static rounds pay, in words."""
    gains = [f"{found.first}-{found.last}" for found in report.ranges if found.pays]
    if not gains:
        return "at no batch size"
    return f"at batch {', '.join(gains)}" if any(not found.pays for found in report.ranges) else "at every batch size"


def notes(advice: Advice) -> list[str]:
    """What a reader must know before pasting anything."""
    experiment = advice.contest.plain.experiment
    bands = "come from the errors of step times, with the acceptance as given"
    found = [f"Predicted, not measured; bands hold a figure with probability {LEVEL:.0%} and {bands}"]
    unknown = [report.drafted.name for report in advice.drafters if not report.drafted.acceptance_known]
    if unknown:
        found.append(
            f"Acceptance of {', '.join(unknown)} is not known, so no gain is claimed for it: give your own server's "
            "figures by speculation/acceptance=... (NAME/acceptance=... for one of several; docs/acceptance.md), or "
            "take the preset's by acceptance=preset"
        )
    advised = advice.advised
    if advised is not None and isinstance(advised.length, TableByBatch):
        found.append(
            "num_speculative_tokens_per_batch_size needs vLLM with dynamic speculative decoding; with model runner V1 "
            "(VLLM_USE_V2_MODEL_RUNNER=0) it runs without full CUDA graphs, which is not priced here"
        )
    if experiment.cluster.data_parallel > 1:
        found.append("No table by batch: vLLM ignores it under data parallelism")
    return found + _left_out(advice)


def _left_out(advice: Advice) -> list[str]:
    served = len(advice.contest.plain.requests)
    best = [report.best for report in advice.drafters if report.best is not None]
    left = {entry.drafted.name: served - len(entry.result.requests) for entry in best}
    return [
        f"{name} leaves no room for {count} of {served} requests: its gains are of the rest"
        for name, count in left.items()
        if count
    ]


def _unclaimed(advice: Advice) -> str:
    parts = []
    for report in advice.drafters:
        name = report.drafted.name
        if report.infeasible:
            parts.append(f"{name} cannot run")
            continue
        reachable = [found for found in report.needed if found.length is not None]
        if not reachable:
            parts.append(f"{name} would lose even if every draft were accepted")
            continue
        needs = ", ".join(f"{found.length:.2f} ({drafts_in_words(found.drafts)})" for found in reachable)
        parts.append(f"{name} pays from an acceptance length of {needs}")
    return f"No gain is claimed: the acceptance is not known. At {advice.load}: {'; '.join(parts)}."


def _band(band: Band) -> str:
    return f"{band.value:.2f}x ({band.low:.2f} to {band.high:.2f})"
