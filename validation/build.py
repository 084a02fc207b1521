"""Which build of the serving loop is under test: its sources, or what mypyc made of them (README, "Start")."""

from __future__ import annotations

from sim.serving import rank

COMPILED = not rank.__file__.endswith(".py")
SPEED_SUITE = "speed_compiled" if COMPILED else "speed"
"""Figures of the two builds stand beside each other on the page."""
