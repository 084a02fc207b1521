"""Batch means: coverage on series whose mean is known, and honesty where a run is too short."""

from __future__ import annotations

import numpy as np
import pytest

from sim.metrics.confidence import batch_means, von_neumann


def ar1(coefficient: float, n: int, series: int, seed: int = 0) -> np.ndarray:
    """Stationary AR(1) series of mean 0, float64 (series, n)."""
    rng = np.random.default_rng(seed)
    x = np.empty((series, n))
    x[:, 0] = rng.standard_normal(series) / np.sqrt(1 - coefficient**2)
    for t in range(1, n):
        x[:, t] = coefficient * x[:, t - 1] + rng.standard_normal(series)
    return x


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(("coefficient", "n"), [(0.0, 300), (0.5, 400), (0.9, 2000)])
def test_the_interval_covers_the_mean_as_often_as_it_says(coefficient: float, n: int, level: float) -> None:
    found = [batch_means(x, level) for x in ar1(coefficient, n, 1000)]
    covered = np.mean([abs(f["mean"]) <= f["half_width"] for f in found])
    assert covered == pytest.approx(level, abs=0.02 + 4 * np.sqrt(level * (1 - level) / 1000))
    assert np.mean([not f["warning"] for f in found]) > 0.85


def test_the_plain_standard_error_would_not_do() -> None:
    """The reason for batches: at a coefficient of 0.9 it covers the mean in about a third of the series."""
    series = ar1(0.9, 2000, 500)
    covered = np.abs(series.mean(axis=1)) <= 1.96 * series.std(axis=1) / np.sqrt(2000)
    assert covered.mean() < 0.5


@pytest.mark.parametrize(("coefficient", "n"), [(0.99, 500), (0.995, 300)])
def test_a_run_too_short_for_its_correlation_says_so(coefficient: float, n: int) -> None:
    found = [batch_means(x, 0.95) for x in ar1(coefficient, n, 300)]
    warned = [f for f in found if f["warning"]]
    assert len(warned) > 0.95 * len(found)
    assert all("still correlated" in f["warning"] and f["autocorrelation"] > 0 for f in warned)


def test_a_trend_is_not_stationary() -> None:
    assert "not stationary" in batch_means(np.linspace(0, 1, 1000), 0.95)["warning"]


def test_by_hand() -> None:
    """40 batches of one value, 1 3 1 3 ...: the 20 pairs are all 2, so the interval has no width."""
    found = batch_means(np.tile([1.0, 3.0], 20), 0.95)
    assert found == {
        "mean": 2.0,
        "half_width": 0.0,
        "batches": 20,
        "batch_size": 2,
        "autocorrelation": pytest.approx(1 - 39 * 4 / (2 * 40)),
        "warning": "",
    }
    twenty = batch_means(np.repeat([1.0, 2.0, 3.0, 2.0, 1.0, 3.0, 2.0, 1.0, 3.0, 2.0], 2), 0.95)
    deviation = np.std([1, 2, 3, 2, 1, 3, 2, 1, 3, 2], ddof=1)
    assert twenty["batches"] == 10
    assert twenty["half_width"] == pytest.approx(2.2622 * deviation / np.sqrt(10), rel=1e-4)  # t(9) at 97.5 %


def test_too_few_values_have_a_mean_and_no_interval() -> None:
    found = batch_means(np.arange(19.0), 0.95)
    assert (found["mean"], found["half_width"]) == (9.0, None)
    assert found["warning"] == "19 values are too few, 20 are needed"
    assert batch_means(np.array([np.nan]), 0.95) == {}
    with_gaps = np.insert(np.arange(20.0), 7, np.nan)
    assert batch_means(with_gaps, 0.9) == batch_means(np.arange(20.0), 0.9)


def test_the_score_of_independent_values_is_standard_normal() -> None:
    scores = np.array([von_neumann(x)[0] for x in np.random.default_rng(1).standard_normal((4000, 40))])
    assert abs(scores.mean()) < 5 / np.sqrt(4000)
    assert scores.std() == pytest.approx(1, abs=0.05)
    assert von_neumann(np.ones(40)) == (0.0, 0.0)
