"""SGLang: decode log lines, the summary of its benchmark, and its gauge."""

from __future__ import annotations

import re

from sim.speculation.acceptance import MeanLength
from sim.speculation.engine_figures.base import EngineFigures

_BATCH = re.compile(r"Decode batch.*?#running-req: (\d+).*?accept len: (\d+(?:\.\d+)?)")
_SUMMARY = re.compile(r"^Accept length:\s+(\d+(?:\.\d+)?)\s*$", re.MULTILINE)
_GAUGE = re.compile(r"^sglang:spec_accept_length(?:\{.*\})?\s+(\S+)", re.MULTILINE)


def read_sglang(text: str, drafts: int) -> EngineFigures:
    """The acceptance length (bonus token counted) of a chain of drafts, as a geometric distribution.

    Read from the benchmark's summary ("Accept length: ..."), else from "Decode batch" lines, weighted by their running
    requests, else from the gauge `sglang:spec_accept_length`. "accept rate" is not used: until April 2026 it was
    (accepted + 1) / num_draft_tokens, the root counted, since then it is accepted / drafted (sgl-project/sglang#23530).

    Args:
        text: log, benchmark output or `/metrics` page.
        drafts: drafts per round: `--speculative-num-steps` of a chain (top-k 1), one less than `num_draft_tokens`.

    Raises:
        ValueError: nothing of it found, or a length above drafts + 1.
    """
    weights, lengths = _lengths(text)
    if not sum(weights):
        raise ValueError(
            "SGLang: must hold 'Accept length: ...', 'Decode batch ... accept len: ...' or sglang:spec_accept_length, "
            "got none of them"
        )
    length = sum(w * value for w, value in zip(weights, lengths, strict=True)) / sum(weights)
    if not 1.0 <= length <= drafts + 1:
        raise ValueError(f"SGLang: the acceptance length must lie in [1, drafts + 1 = {drafts + 1}], got {length:g}")
    return EngineFigures(
        figure="acceptance length",
        acceptance=MeanLength(length=length, drafts=drafts),
        acceptance_length=length,
        accepted_per_drafted=(length - 1.0) / drafts,
    )


def _lengths(text: str) -> tuple[list[float], list[float]]:
    """Weights, and the lengths they belong to."""
    summary = _SUMMARY.findall(text)
    if summary:
        return [1.0], [float(summary[-1])]
    batches = _BATCH.findall(text)
    if batches:
        return [float(running) for running, _ in batches], [float(length) for _, length in batches]
    gauges = [float(value) for value in _GAUGE.findall(text)]
    return [1.0 for value in gauges if value > 0], [value for value in gauges if value > 0]
