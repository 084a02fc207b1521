"""Bands of a run's figures: errors of its step times, and how each figure answers to step times.

How it answers is simulated, on the same requests (of a long stream its head): once with every step slower by its
expected error, and where a queue makes a figure answer by more than twice as much, once with every step faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sim.cost.errors import family_errors
from sim.metrics.bands import LEVEL, Column, family_seconds, interval, shares_of, step_factors
from sim.result import Result
from sim.run import simulate
from sim.scaled import slower_steps

FIGURES = ("throughput", "ttft_s", "tpot_s", "itl_s", "e2e_s")
_STEEP = 2.0
"""Percent that a figure moves per percent of step time, above which slower and faster are told apart."""

_HEAD_REQUESTS = 600
"""Of a longer stream only so many are simulated again."""

Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, eq=False)
class RunBands:
    """A run's figures under the errors of its step times.

    Attributes:
        draws: figure -> statistic -> factors on it, (DRAWS,), the same errors in the same order in every run.
    """

    draws: Mapping[str, Mapping[str, Column]]

    def ends(self, summary: Mapping[str, Any], level: float = LEVEL) -> dict[str, Any]:
        """The bands of a summary's figures: `level`, then figure -> statistic -> [low, high]."""
        found: dict[str, Any] = {"level": level}
        for figure, statistics in self.draws.items():
            found[figure] = {
                name: [end * summary[figure][name] for end in interval(factors, level)]
                for name, factors in statistics.items()
            }
        return found

    def speedup(self, plain: RunBands, values: Mapping[str, float], level: float = LEVEL) -> dict[str, list[float]]:
        """The bands of speedups over the same model without SD.

        Args:
            plain: of that run.
            values: `sim.metrics.summary.speedup` of both.
            level: probability that a band holds its figure.
        """
        found = {}
        for name, value in values.items():
            if name == "throughput":
                ratio = self.draws[name]["output_tokens_per_s"] / plain.draws[name]["output_tokens_per_s"]
            else:
                ratio = plain.draws[f"{name}_s"]["mean"] / self.draws[f"{name}_s"]["mean"]
            found[name] = [end * value for end in interval(ratio, level)]
        return found


def run_bands(result: Result) -> RunBands:
    """Simulate what a run's figures would be under its expected errors."""
    experiment, cost, blocks = result.experiment, result.cost, result.recorder.blocks()
    errors = family_errors(cost.target)
    families = family_seconds(blocks, result.cost_at)
    decode = shares_of(families, blocks["sequences"].astype(np.float64))
    prompt = shares_of(families, blocks["chunks"].astype(np.float64)) or decode
    decode = decode or prompt
    logs = {
        shares: np.log(step_factors(parts, errors, cost.width, experiment.measured_step))
        for shares, parts in (("decode", decode), ("prompt", prompt))
    }
    by = max(float(logs["decode"].std()), 1e-3)
    head = _head(result)
    base = _figures(head)
    slower = _answers(base, head, by)
    steep = any(abs(answer) > _STEEP for statistics in slower.values() for answer in statistics.values())
    faster = _answers(base, head, -by) if steep else slower
    return RunBands(
        {
            figure: {
                name: _moved(logs["prompt" if figure == "ttft_s" else "decode"], answer, faster[figure][name])
                for name, answer in statistics.items()
            }
            for figure, statistics in slower.items()
        }
    )


def _head(result: Result) -> Result:
    """The run, or one of the first requests alone."""
    requests = result.requests
    if len(requests) <= _HEAD_REQUESTS:
        return result
    first = requests.take(np.arange(len(requests)) < _HEAD_REQUESTS)
    return simulate(replace(result.experiment, drop_oversized=False), first)


def _figures(result: Result) -> Figures:
    summary = result.summary()
    return {figure: {name: v for name, v in summary[figure].items() if v} for figure in FIGURES}


def _answers(base: Figures, result: Result, by: float) -> dict[str, dict[str, float]]:
    """Change of the logarithm of every figure per change of that of step time, with steps exp(by) as long."""
    experiment = replace(slower_steps(result.experiment, math.exp(by)), drop_oversized=False)
    moved = _figures(simulate(experiment, result.requests))
    return {
        figure: {
            name: _answer(figure, moved[figure].get(name, value) / value, by) for name, value in statistics.items()
        }
        for figure, statistics in base.items()
    }


def _answer(figure: str, ratio: float, by: float) -> float:
    """Longer steps lower rates, and lengthen latencies, which are sums of steps, by at least as much.

    Where few requests show less, that is chance.
    """
    answer = math.log(ratio) / by
    return min(0.0, answer) if figure == "throughput" else max(1.0, answer)


def _moved(log: Column, slower: float, faster: float) -> Column:
    factors: Column = np.exp(np.where(log > 0, slower, faster) * log)
    return factors
