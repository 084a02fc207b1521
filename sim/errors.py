"""The one error of our own: a deployment that cannot run."""

from __future__ import annotations


class InfeasibleError(Exception):
    """Weights, or the KV of every request, do not fit; the message holds the arithmetic."""
