"""Histograms of accepted drafts per request: vLLM, SGLang and TensorRT-LLM report the same list under different names.

Entry j counts the rounds of the request that accepted exactly j drafts. vLLM (`--per-request-spec-decode-metrics`) and
TensorRT-LLM call it `acceptance_histogram`, SGLang `spec_correct_drafts_histogram` (before: `spec_accept_histogram`).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.speculation.acceptance import BetaRate
from sim.speculation.engine_figures.base import EngineFigures, from_accepted_per_position

NAMES = ("acceptance_histogram", "spec_correct_drafts_histogram", "spec_accept_histogram")


def read_request_histograms(text: str) -> EngineFigures:
    """Unconditional rates per position over all requests, from JSON or JSON lines of responses.

    Each response's histogram is taken from wherever it stands in it; responses without one (not a single round) count
    nothing. `accepted_per_drafted` takes every round as drafting the longest histogram's length.

    Raises:
        ValueError: text that is not JSON, no histogram at all, or entries that are not counts.
    """
    histograms = _histograms(text)
    drafts = max(map(len, histograms)) - 1
    total = [sum(h[j] for h in histograms if j < len(h)) for j in range(drafts + 1)]
    accepted = [float(sum(total[j:])) for j in range(1, drafts + 1)]
    rounds = float(sum(total))
    return from_accepted_per_position(accepted, rounds, rounds * drafts, "responses")


def fit_beta_rate(text: str) -> BetaRate:
    """How far requests differ: the Beta distribution of their rates under which their histograms are likeliest.

    Each request has one rate at all depths. It tried a draft that followed accepted ones only: its accepted drafts
    are the successes, its rounds that stopped short of the longest histogram's length the failures.

    Raises:
        ValueError: as `read_request_histograms`, fewer than two requests, or drafts that were all accepted or none.
    """
    from scipy.optimize import minimize
    from scipy.special import betaln

    histograms = _histograms(text)
    drafts = max(map(len, histograms)) - 1
    accepted = np.array([sum(j * rounds for j, rounds in enumerate(h)) for h in histograms])
    rejected = np.array([sum(h[:drafts]) for h in histograms])
    if len(histograms) < 2 or not accepted.sum() or not rejected.sum():
        raise ValueError(
            f"responses: must be at least 2 with accepted and rejected drafts among them, got {len(histograms)} with "
            f"{accepted.sum()} and {rejected.sum()}"
        )

    def cost(z: NDArray[np.float64]) -> float:
        mean, concentration = 1.0 / (1.0 + np.exp(-z[0])), np.exp(z[1])
        a, b = mean * concentration, (1.0 - mean) * concentration
        return -float(np.mean(betaln(a + accepted, b + rejected) - betaln(a, b)))

    pooled = accepted.sum() / (accepted.sum() + rejected.sum())
    start = np.array([np.log(pooled / (1.0 - pooled)), np.log(10.0)])
    z = minimize(cost, start, bounds=[(-12.0, 12.0), (np.log(1e-2), np.log(1e4))]).x
    return BetaRate(mean=float(1.0 / (1.0 + np.exp(-z[0]))), concentration=float(np.exp(z[1])))


def _histograms(text: str) -> list[list[int]]:
    histograms = [found for number, line in _documents(text) for found in _find(line, number)]
    if not histograms:
        raise ValueError(f"responses: must hold {', '.join(NAMES)}, got none of them; is the request-level report on?")
    return histograms


def _documents(text: str) -> list[tuple[int, Any]]:
    """(line, document): the whole text where it is one document, else every line."""
    try:
        return [(1, json.loads(text))]
    except json.JSONDecodeError:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    documents = []
    for number, line in lines:
        try:
            documents.append((number, json.loads(line)))
        except json.JSONDecodeError as error:
            raise ValueError(f"responses:{number}: must be JSON, got {line.strip()[:40]!r}") from error
    return documents


def _find(document: Any, line: int) -> list[list[int]]:
    """The histograms in a document, one for each object that has any."""
    if isinstance(document, list):
        return [found for entry in document for found in _find(entry, line)]
    if not isinstance(document, dict):
        return []
    for name in NAMES:
        histogram = document.get(name)
        if histogram:
            if not isinstance(histogram, list) or not all(type(n) is int and n >= 0 for n in histogram):
                raise ValueError(f"responses:{line}: {name} must be a list of counts, got {histogram!r}")
            return [histogram]
    return [found for entry in document.values() for found in _find(entry, line)]
