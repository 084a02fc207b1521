"""Statistics of a run from its records: latencies, throughput, acceptance, and where the time went."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.cost.lines import TICKS_PER_S
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.metrics.record import NOT_YET, Recorder
from sim.metrics.rounds import acceptance, equation4
from sim.metrics.totals import BlockTotals
from sim.request import Requests

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """Per request, in seconds since the start of the run, float64 (n,); NaN for what did not happen.

    `end_s` is the finish, or when the client gave up or the request was lost.
    """

    arrival_s: Column
    admitted_s: Column
    first_token_s: Column
    finish_s: Column
    end_s: Column

    @classmethod
    def of(cls, recorder: Recorder) -> Times:
        """Times of a recorder."""
        arrival, admitted, first_token, finish, cancelled, lost = (
            in_seconds(getattr(recorder, name))
            for name in ("arrival", "admitted", "first_token", "finish", "cancelled", "lost")
        )
        end = np.where(np.isnan(finish), np.where(np.isnan(cancelled), lost, cancelled), finish)
        return cls(arrival, admitted, first_token, finish, end)

    @property
    def ttft_s(self) -> Column:
        """Time to first token, from arrival."""
        return self.first_token_s - self.arrival_s

    @property
    def e2e_s(self) -> Column:
        """Time to last token, from arrival."""
        return self.finish_s - self.arrival_s

    def tpot_s(self, output_tokens: NDArray[np.int64]) -> Column:
        """Time per output token after the first; NaN for a single token."""
        gaps = np.where(output_tokens > 1, output_tokens - 1, np.nan)
        return (self.finish_s - self.first_token_s) / gaps


def in_seconds(ticks: array[int]) -> Column:
    """A recorder's column of ticks; NaN for what did not happen."""
    column = np.asarray(ticks, dtype=np.float64)
    seconds: Column = np.where(column == NOT_YET, np.nan, column / TICKS_PER_S)
    return seconds


def last_end_s(times: Times, recorder: Recorder) -> float:
    """When the last request finished; where none did, the end of the last step."""
    if np.isfinite(times.finish_s).any():
        return float(np.nanmax(times.finish_s))
    return int(recorder.column("end").max(initial=0)) / TICKS_PER_S


def distribution(values: Column) -> dict[str, float]:
    """Mean and quantiles of the finite values; empty where there are none."""
    values = values[np.isfinite(values)]
    if not values.size:
        return {}
    return {"mean": float(values.mean())} | {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}


def weighted_distribution(values: Column, weights: Column) -> dict[str, float]:
    """Mean and quantiles of `values` that occur `weights` times each; a quantile is one of the values."""
    kept = weights > 0
    if not kept.any():
        return {}
    values, weights = values[kept], weights[kept]
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    del order
    below = np.cumsum(weights)
    at = {name: float(values[np.searchsorted(below, q * below[-1])]) for name, q in QUANTILES.items()}
    return {"mean": float(np.average(values, weights=weights))} | at


def block_shape(blocks: dict[str, NDArray[np.int64]]) -> StepShape:
    """The mean step of each block."""
    return StepShape(
        sequences=blocks["sequences"],
        width=blocks["verify_tokens"] / np.maximum(blocks["steps"] * blocks["sequences"], 1),
        context_tokens=blocks["context_tokens"] // blocks["steps"],
        chunks=blocks["chunks"],
        prefill_tokens=blocks["prefill_tokens"],
        prefill_history_tokens=blocks["prefill_history_tokens"],
        prefill_pairs=blocks["prefill_pairs"],
        completed=blocks["completed"],
    )


def block_seconds(blocks: dict[str, NDArray[np.int64]]) -> Column:
    """Duration of each block."""
    return (blocks["end"] - blocks["start"]) / TICKS_PER_S


def block_phases(blocks: dict[str, NDArray[np.int64]], cost_at: Callable[[int], StepCost]) -> dict[str, Column]:
    """Seconds of each block by phase, priced at its draft length; they sum to its duration."""
    seconds = block_seconds(blocks)
    by_phase: dict[str, Column] = {}
    for drafts in np.unique(blocks["drafts"]).tolist():
        chosen = blocks["drafts"] == drafts
        phases = cost_at(drafts).phases(block_shape({name: column[chosen] for name, column in blocks.items()}))
        scale = seconds[chosen] / sum(phases.values())
        for name, priced in phases.items():
            by_phase.setdefault(name, np.zeros_like(seconds))[chosen] = priced * scale
    return by_phase


def token_gaps(recorder: Recorder, steps_s: Column) -> dict[str, float]:
    """ITL: gaps between emissions of a sequence, which are the steps it decodes in.

    `steps_s` are the durations of all steps, or of all blocks' mean steps. A preempted sequence's gap counts in
    TPOT alone.
    """
    weight = recorder.column("sequences").astype(np.float64)
    if recorder.keep_steps:
        return weighted_distribution(steps_s, np.repeat(weight, recorder.column("steps")))
    weight *= recorder.column("steps")
    return weighted_distribution(steps_s, weight)


def summarise(
    recorder: Recorder,
    requests: Requests,
    cost: StepCost,
    cost_at: Callable[[int], StepCost],
    steps_s: Column,
    gpus: int,
    totals: BlockTotals,
) -> dict[str, object]:
    """The figures of `summary.json`; names carry their units.

    Args:
        recorder: what the run wrote down.
        requests: the stream.
        cost: the price of its steps at the longest draft length.
        cost_at: the same at any.
        steps_s: durations as for `token_gaps`.
        gpus: of the whole deployment.
        totals: of its blocks.
    """
    times = Times.of(recorder)
    makespan_s = last_end_s(times, recorder) - float(np.nanmin(times.arrival_s))
    finished = np.isfinite(times.finish_s)
    output, prompt = (int(column[finished].sum()) for column in (requests.output_tokens, requests.prompt_tokens))
    rounds = acceptance(recorder) if cost.drafting is not None else {}
    terms = equation4(recorder.parts(), cost_at, rounds["acceptance_length"]) if rounds else {}
    return {
        "requests": len(requests),
        "dropped": dict(requests.dropped),
        "makespan_s": makespan_s,
        "throughput": {
            "requests_per_s": int(np.count_nonzero(finished)) / makespan_s,
            "output_tokens_per_s": output / makespan_s,
            "output_tokens_per_s_per_gpu": output / makespan_s / gpus,
            "total_tokens_per_s": (output + prompt) / makespan_s,
        },
        "ttft_s": distribution(times.ttft_s),
        "tpot_s": distribution(times.tpot_s(requests.output_tokens)),
        "itl_s": token_gaps(recorder, steps_s),
        "e2e_s": distribution(times.e2e_s),
        "speculation": rounds,
        "equation_4": terms,
        "target_efficiency": 1.0 / terms["verify"] if terms else None,
        "activated_experts": totals.experts_s / totals.busy_s if cost.target.model.is_moe else None,
        "running_requests": totals.mean(totals.sequences_s),
        "waiting_requests": totals.mean(totals.waiting_s),
        "kv_blocks_peak": totals.kv_blocks_peak,
        "preemptions": sum(recorder.preemptions),
        "steps": totals.steps,
        "busy_s": totals.busy_s,
        "phase_share": {name: seconds / totals.busy_s for name, seconds in totals.phases.items()},
    }


def speedup(plain: dict[str, Any], speculated: dict[str, Any]) -> dict[str, float]:
    """How many times better with SD, by time per output token, end-to-end latency and output throughput.

    Empty where either run was interrupted, for then they served different requests.
    """
    if plain["partial"] or speculated["partial"]:
        return {}
    ratios = {
        name: plain[f"{name}_s"]["mean"] / speculated[f"{name}_s"]["mean"]
        for name in ("tpot", "e2e")
        if plain[f"{name}_s"] and speculated[f"{name}_s"]
    }
    tokens = "output_tokens_per_s"
    before, after = (run["throughput"][tokens] for run in (plain, speculated))
    return ratios | ({"throughput": after / before} if before else {})
