"""The one error of our own: a deployment that cannot run."""

from __future__ import annotations


class InfeasibleError(Exception):
    """Weights, or the KV of a single sequence, do not fit; the message holds the arithmetic. A sweep records it as a row."""
