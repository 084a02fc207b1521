"""What a run costs, in units no machine changes: SimPy events."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim import simulate
from validation.speed import CASES, experiment

TENTH = {"80/s, no SD": 23_537, "80/s, SD on MoE": 22_942}
"""Events of the first tenth of the stream on a tenth of the replicas, the load of each as in the whole case."""


@pytest.mark.parametrize("case", [case for case in CASES if case.name in TENTH], ids=lambda case: case.name)
def test_events_are_counted_to_the_last_one(case):
    tenth = replace(case, requests=case.requests // 10, rate_per_s=case.rate_per_s / 10, replicas=case.replicas // 10)
    events = simulate(experiment(tenth)).events
    assert events == TENTH[case.name]
    assert events / tenth.requests <= case.events_goal
