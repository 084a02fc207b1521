"""Draws by address: uniform, independent between neighbours, free of order."""

from __future__ import annotations

import numpy as np
from scipy import stats

from sim.draws import derive, key, uniform

N = 200_000


def test_uniform():
    u = uniform(derive(key(0, "acceptance"), np.arange(N)))
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert u.min() >= 0.0 and u.max() < 1.0


def test_neighbours_are_uncorrelated():
    base = uniform(derive(key(0, "acceptance"), np.arange(N)))
    for other in (
        uniform(derive(key(1, "acceptance"), np.arange(N))),
        uniform(derive(key(0, "arrivals"), np.arange(N))),
        uniform(derive(key(0, "acceptance"), np.arange(N) + 1)),
        uniform(derive(derive(key(0, "acceptance"), np.arange(N)), 7)),
    ):
        assert abs(np.corrcoef(base, other)[0, 1]) < 4 / np.sqrt(N)


def test_a_draw_depends_on_its_address_alone():
    together = uniform(derive(derive(key(3, "a"), np.arange(100))[:, None], np.arange(50)))
    alone = uniform(derive(derive(key(3, "a"), 42), 17))
    assert together[42, 17] == alone


def test_large_and_negative_seeds_are_keys():
    assert key(2**63 - 1, "a") != key(2**62, "a")
