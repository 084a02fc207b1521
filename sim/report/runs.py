"""The runs of a report: named apart, paired with their twins without SD, each with its own colour and line."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.metrics.summary import speedup
from sim.report.settings import distinguish, settings
from sim.result import Result
from sim.waterfall import Waterfall, waterfall

COLOURS = 8
"""Colours of the style sheet, `--run-0` and up."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A result as the report shows it.

    Attributes:
        result: the run.
        summary: its headline figures.
        label: unique in the report.
        colour: custom property of the style sheet; a run without SD shares that of its first SD twin.
        settings: the experiment as flat text.
        plain: summary of the run that differs by having no SD, None where there is none or this is one.
        bands: of its figures, as `sim.bands.RunBands.ends` has them; empty where none were asked for.
        why: from the ideal to the achieved speedup over that run; None where there is nothing to explain.
    """

    result: Result
    summary: dict[str, Any]
    label: str
    colour: str
    settings: dict[str, str]
    plain: dict[str, Any] | None
    bands: Mapping[str, Any] = field(default_factory=dict)
    why: Waterfall | None = None

    @property
    def dash(self) -> str:
        """Solid with SD, dashed without."""
        return "solid" if self.result.experiment.drafts else "dash"

    @property
    def speedup(self) -> float | None:
        """Mean TPOT without SD over mean TPOT with it, under the same requests; None where either is missing."""
        return None if self.plain is None else speedup(self.plain, self.summary).get("tpot")

    @property
    def acceptance_length(self) -> float | None:
        """Tokens per round and sequence; None without SD."""
        length: float | None = self.summary["speculation"].get("acceptance_length")
        return length

    @property
    def target_efficiency(self) -> float | None:
        """Over the run's pure decode steps; None without SD or without such steps."""
        efficiency = self.summary["target_efficiency"]
        return None if efficiency is None or math.isnan(efficiency) else float(efficiency)


def runs_of(results: Sequence[Result], bands: Mapping[str, Any] | None = None) -> list[Run]:
    """The results as runs, in their order; `bands` by the results' labels."""
    texts = [settings(result.experiment) for result in results]
    twins = [_without_sd(text) for text in texts]
    summaries = [result.summary() for result in results]
    plain = {twin: (s, r) for twin, s, r in zip(twins, summaries, results, strict=True) if not r.experiment.drafts}
    return [
        Run(
            result=result,
            summary=summary,
            label=label,
            colour=colour,
            settings=text,
            bands=(bands or {}).get(result.label, {}),
            plain=plain[twin][0] if summary["drafts"] and twin in plain else None,
            why=waterfall(plain[twin][1], result) if summary["drafts"] and twin in plain else None,
        )
        for result, summary, label, colour, text, twin in zip(
            results, summaries, _labels(results, texts), _colours(results, twins), texts, twins, strict=True
        )
    ]


def _without_sd(text: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in text.items() if not key.startswith("speculation"))


def _labels(results: Sequence[Result], texts: Sequence[dict[str, str]]) -> list[str]:
    alike = defaultdict(list)
    for number, result in enumerate(results):
        alike[result.label].append(number)
    labels = [result.label for result in results]
    for numbers in alike.values():
        if len(numbers) > 1:
            for number, apart in zip(numbers, distinguish([texts[i] for i in numbers]), strict=True):
                labels[number] += f" ({apart})"
    return labels


def _colours(results: Sequence[Result], twins: Sequence[tuple[tuple[str, str], ...]]) -> list[str]:
    """One colour per pair; further SD runs of a pair take colours of their own."""
    taken: dict[object, int] = {}
    seen: dict[object, int] = defaultdict(int)
    colours = []
    for result, twin in zip(results, twins, strict=True):
        with_sd = bool(result.experiment.drafts)
        key = (twin, seen[twin, with_sd] if with_sd else 0)
        seen[twin, with_sd] += 1
        colours.append(f"--run-{taken.setdefault(key, len(taken)) % COLOURS}")
    return colours
