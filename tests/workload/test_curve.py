"""Time-varying rates: the realised rate is the one asked for, and nothing but time changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.workload import Lengths, RateCurve, Synthetic

SINUSOID = RateCurve(kind="sinusoid", period_s=100.0, amplitude=0.9, peak_at_s=30.0)
STEPS = RateCurve(kind="piecewise", period_s=60.0, starts_s=[0, 10, 40], weights=[0, 3, 1])
CURVES = {"sinusoid": SINUSOID, "steps": STEPS}
FIXED = Lengths(kind="fixed", tokens=10)


def workload(curve: RateCurve | None, n: int = 100_000, arrival: str = "poisson", rate: float = 20.0) -> Synthetic:
    cv = 2.0 if arrival == "gamma" else None
    return Synthetic(num_requests=n, arrival=arrival, rate_per_s=rate, cv=cv, curve=curve, prompt=FIXED, output=FIXED)


def asked(curve: RateCurve, at_s: np.ndarray) -> np.ndarray:
    """Relative rate from the definition, not from the code's pieces."""
    if curve is SINUSOID:
        return 1 + 0.9 * np.cos(2 * np.pi * (at_s - 30) / 100)
    return np.select([at_s < 10, at_s < 40], [0.0, 3.0], 1.0) * 60 / (30 * 3 + 20)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_poisson_counts_follow_the_curve_with_poisson_variance(curve: RateCurve) -> None:
    arrival_s = workload(curve).requests(1).arrival_s
    periods = int(arrival_s[-1] // curve.period_s)
    inside = arrival_s[arrival_s < periods * curve.period_s] % curve.period_s
    bins = np.linspace(0, curve.period_s, 31)
    fine = np.linspace(0, curve.period_s, 30 * 100 + 1)
    middles = (fine[1:] + fine[:-1]) / 2
    mean = asked(curve, middles).reshape(30, 100).mean(axis=1) * 20.0 * periods * curve.period_s / 30
    counts = np.histogram(inside, bins)[0]
    assert not counts[mean == 0].any()
    score = (counts - mean)[mean > 0] / np.sqrt(mean[mean > 0])
    chi2 = float((score**2).sum())
    assert chi2 == pytest.approx(len(score), abs=5 * np.sqrt(2 * len(score)))


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("arrival", ["poisson", "gamma", "constant"])
def test_the_mean_rate_is_rate_per_s(curve: RateCurve, arrival: str) -> None:
    arrival_s = workload(curve, arrival=arrival).requests(2).arrival_s
    assert len(arrival_s) / arrival_s[-1] == pytest.approx(20.0, rel=0.03)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_constant_arrivals_are_spaced_by_the_momentary_rate(curve: RateCurve) -> None:
    arrival_s = workload(curve, 20_000, "constant", rate=50.0).requests(0).arrival_s
    gaps, middle = np.diff(arrival_s), (arrival_s[1:] + arrival_s[:-1]) / 2 % curve.period_s
    steady = asked(curve, middle) > 0.2
    inner = steady & np.all([np.abs(middle - edge) > 0.2 for edge in (0, 10, 40, 60)], axis=0)
    assert inner.sum() > 15_000
    np.testing.assert_allclose((gaps * 50 * asked(curve, middle))[inner], 1.0, rtol=0.02)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_more_requests_append_and_time_never_runs_back(curve: RateCurve) -> None:
    few, many = (workload(curve, n).requests(3).arrival_s for n in (100, 5000))
    assert np.array_equal(few, many[:100])
    assert (np.diff(many) >= 0).all()


def test_the_curve_leaves_whole_periods_in_place() -> None:
    """Both curves and the steady stream have had the same requests by the end of each period."""
    steady = workload(None, 6001, "constant").requests(0).arrival_s
    for curve in CURVES.values():
        warped = curve.warp(steady)
        for end_s in np.arange(1, 3) * curve.period_s:
            assert np.count_nonzero(warped < end_s) == pytest.approx(np.count_nonzero(steady < end_s), abs=1)


def test_steps_by_hand() -> None:
    """Rates 2/3 and 4/3 of the mean: 1/s steady becomes gaps of 1.5 s, then of 0.75 s."""
    curve = RateCurve(kind="piecewise", period_s=12.0, starts_s=[0, 6], weights=[1, 2])
    np.testing.assert_allclose(curve.warp(np.array([0, 1, 4, 5, 12, 13.0])), [0, 1.5, 6, 6.75, 12, 13.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "square"}, r"workload\.curve\.kind must be one of sinusoid, piecewise, got 'square'"),
        ({"amplitude": None}, r"curve\.amplitude must be set with kind=sinusoid"),
        ({"amplitude": 0.0}, r"curve\.amplitude must lie in \(0, 1\], got 0"),
        ({"amplitude": 1.1}, r"curve\.amplitude must lie in \(0, 1\], got 1\.1"),
        ({"period_s": 0.0}, r"curve\.period_s must be > 0, got 0"),
        ({"peak_at_s": 100.0}, r"curve\.peak_at_s must be < period_s = 100\.0, got 100"),
        ({"peak_at_s": -1.0}, r"curve\.peak_at_s must be >= 0, got -1"),
        ({"weights": [1.0, 2.0]}, r"curve\.weights has no effect with kind=sinusoid"),
        (
            {"kind": "piecewise", "amplitude": None, "peak_at_s": None, "starts_s": [0.0], "weights": [1.0]},
            r"at least 2, got 1 and 1",
        ),
    ],
)
def test_bad_curves_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workload(replace(SINUSOID, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts_s": [0, 10]}, r"weights must have as many entries as starts_s .* got 3 and 2"),
        ({"starts_s": [1, 10, 40]}, r"starts_s must rise from 0 and stay below period_s = 60"),
        ({"starts_s": [0, 10, 60]}, r"starts_s must rise from 0 and stay below"),
        ({"weights": [1, 1, 1]}, r"weights must be finite, >= 0 and not all equal"),
        ({"weights": [1, -1, 1]}, r"weights must be finite, >= 0"),
    ],
)
def test_bad_steps_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workload(replace(STEPS, **change))


def test_a_curve_without_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"workload\.curve has no effect with arrival=batch"):
        Synthetic(num_requests=5, arrival="batch", curve=STEPS, prompt=FIXED, output=FIXED)
