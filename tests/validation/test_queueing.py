"""The queueing suite at a size for every day: what must be exact is, and a wrong queue is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from validation.queueing import (
    BAR,
    LIMITS,
    Visits,
    erlang_c,
    limit_checks,
    little_check,
    pollaczek_khinchine,
    recursion_waits,
)

N = 3_000


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_limits(limit):
    checks = {check.metric: check for check in limit_checks(limit, N)}
    bound = 0.0 if limit.servers == 1 else BAR
    assert checks["mean_wait_controlled_rel_error"].value <= bound
    assert checks["service_against_lone_request_rel_error"].value <= bound
    noise = 0.08  # a mean E2E over 3,000 requests
    assert checks["mean_e2e_rel_error"].value < noise


def test_little_is_exact():
    assert little_check(400).value == 0.0


def drawn(n: int, servers: int, load: float) -> Visits:
    """A queue of exponential services, first come, first served, by the recursion alone."""
    rng = np.random.default_rng(5)
    arrival = np.cumsum(rng.exponential(1e6 / (load * servers), n)).astype(np.int64)
    service = np.ceil(rng.exponential(1e6, n)).astype(np.int64)
    idle = Visits(arrival, arrival, arrival + service)
    start = arrival + recursion_waits(idle, servers)
    return replace(idle, start=start, finish=start + service)


@pytest.mark.parametrize("servers", [1, 4])
def test_closed_forms_meet_the_recursion(servers):
    visits = drawn(200_000, servers, 0.5)
    assert erlang_c(visits, servers) == pytest.approx(visits.wait.mean(), rel=0.05)
    if servers == 1:
        assert pollaczek_khinchine(visits) == pytest.approx(erlang_c(visits, 1), rel=0.02)


def test_one_server_waits_longer_than_the_two_halves_of_it():
    assert erlang_c(drawn(1_000, 4, 0.8), 4) < erlang_c(drawn(1_000, 1, 0.8), 1)
