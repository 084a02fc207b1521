"""Other loads of the same requests, and where a gain turns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import DraftModel, Lengths
from sim.advise.crossover import Loads, crossings
from sim.advise.load import Load, at_load, grid, load_of
from sim.workload.closed_loop import ClosedLoop
from sim.workload.durations import Durations
from tests.advise.deployments import H100, served, with_sd
from tests.deployments import workload


def test_another_rate_keeps_lengths_and_stretches_gaps():
    requests = workload(num_requests=50, rate_per_s=4.0).requests(0)
    faster = at_load(requests, Load("rate_per_s", 2 * load_of(requests).value))
    assert faster.arrival_s == pytest.approx(requests.arrival_s / 2)
    assert (faster.output_tokens == requests.output_tokens).all()
    assert load_of(faster).value == pytest.approx(2 * load_of(requests).value)


def test_requests_sent_at_once_are_a_load_in_flight():
    requests = replace(workload(num_requests=20).requests(0), arrival_s=np.zeros(20))
    assert load_of(requests) == Load("concurrency", 20.0)
    fewer = at_load(requests, Load("concurrency", 5.0))
    assert fewer.concurrency == 5
    assert load_of(fewer) == Load("concurrency", 5.0)
    assert {load.value for load in grid(requests, 0.0, 16)} == {1.0, 2.0, 4.0, 8.0, 16.0}


def test_clients_that_wait_for_their_answers_have_their_own_load_alone():
    lengths = Lengths(kind="fixed", tokens=50)
    think = Durations(kind="fixed", seconds=1.0)
    requests = ClosedLoop(num_requests=12, clients=4, think=think, prompt=lengths, output=lengths).requests(0)
    assert load_of(requests) == Load("concurrency", 4.0)
    assert grid(requests, 1.0, 64) == [load_of(requests)]


def test_the_grid_reaches_beyond_what_can_be_served():
    requests = workload(num_requests=50, rate_per_s=4.0).requests(0)
    loads = grid(requests, 10.0, 64)
    assert loads[0].value < 1.0
    assert loads[-1].value > 10.0
    assert load_of(requests) in loads
    assert loads == sorted(loads, key=lambda load: load.value)


@pytest.mark.parametrize("at", [0.31, 1.7, 40.0])
def test_a_crossing_is_found_within_six_percent(at):
    loads = [Load("rate_per_s", value) for value in (0.1, 0.6, 3.6, 21.6, 129.6)]

    def gain(load):
        return 2.0 / (1.0 + load.value / at)

    (found,) = crossings(gain, loads, [gain(load) for load in loads])
    assert found.turns == "negative"
    assert found.at.value == pytest.approx(at, rel=0.06)


def test_a_hump_has_two_crossings_and_a_flat_gain_none():
    loads = [Load("concurrency", float(2**k)) for k in range(8)]
    hump = [0.9, 0.95, 1.2, 1.5, 1.4, 1.1, 0.9, 0.8]
    by_load = dict(zip((load.value for load in loads), hump, strict=True))

    def gain(load):
        return float(np.interp(load.value, sorted(by_load), [by_load[key] for key in sorted(by_load)]))

    assert [found.turns for found in crossings(gain, loads, hump)] == ["positive", "negative"]
    assert crossings(gain, loads, [1.2] * 8) == []


def test_sd_turns_negative_at_the_load_that_is_named():
    """A draft model whose drafts are seldom accepted: gain at low load, loss at high; simulated on both sides of it."""
    plain = served("qwen3_8b", H100, num_requests=30, rate_per_s=4.0, prompt=200, output=40)
    speculated = with_sd(plain, DraftModel(), 0.5, drafts=2)
    requests = plain.workload.requests(0)
    points = [Load("rate_per_s", value) for value in (2.0, 120.0)]
    loads = Loads(plain, requests, "e2e")
    curve = loads.curve("SD", speculated, points)
    (crossing,) = curve.crossings
    assert crossing.turns == "negative"
    assert curve.turns_negative == crossing.at
    assert loads.gain(speculated, Load("rate_per_s", crossing.at.value / 1.3)) > 1.0
    assert loads.gain(speculated, Load("rate_per_s", crossing.at.value * 1.3)) < 1.0
