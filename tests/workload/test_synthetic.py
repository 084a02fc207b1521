"""Laws of synthetic workloads: rates, gaps, quantiles, and streams of randomness that do not touch one another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.workload import Lengths, Synthetic

FIXED = Lengths(kind="fixed", tokens=100)
UNIFORM = Lengths(kind="uniform", min_tokens=3, max_tokens=6)
LOGNORMAL = Lengths(kind="lognormal", median_tokens=200.0, sigma=0.9)
QUANTILES = Lengths(kind="quantiles", probabilities=[0, 0.5, 0.9, 1], quantile_tokens=[1, 100, 1000, 5000])
LENGTHS = {"fixed": FIXED, "uniform": UNIFORM, "lognormal": LOGNORMAL, "quantiles": QUANTILES}
ARRIVALS = {
    "poisson": {"rate_per_s": 5.0},
    "gamma": {"rate_per_s": 5.0, "cv": 3.0},
    "constant": {"rate_per_s": 5.0},
    "closed_loop": {"concurrency": 7},
    "batch": {},
}
OPEN = ("poisson", "gamma", "constant")


def workload(
    arrival: str = "poisson", n: int = 1000, prompt: Lengths = QUANTILES, output: Lengths = LOGNORMAL
) -> Synthetic:
    return Synthetic(num_requests=n, arrival=arrival, prompt=prompt, output=output, **ARRIVALS[arrival])


@pytest.mark.parametrize("arrival", OPEN)
def test_gaps_have_the_rate_and_the_cv_asked_for(arrival: str) -> None:
    n = 200_000
    gaps = np.diff(workload(arrival, n, FIXED, FIXED).requests(3).arrival_s)
    cv = {"poisson": 1.0, "gamma": 3.0, "constant": 0.0}[arrival]
    assert gaps.mean() == pytest.approx(1 / 5.0, rel=max(5 * cv / np.sqrt(n), 1e-9))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


def test_poisson_counts_have_the_variance_of_their_mean() -> None:
    arrival_s = workload("poisson", 200_000, FIXED, FIXED).requests(4).arrival_s
    counts = np.histogram(arrival_s, np.arange(0, arrival_s[-1], 2.0))[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / len(counts)))


def test_gamma_with_cv_1_is_poisson_in_law() -> None:
    gamma = Synthetic(num_requests=50_000, arrival="gamma", rate_per_s=2.0, cv=1.0, prompt=FIXED, output=FIXED)
    gaps = np.diff(gamma.requests(1).arrival_s)
    levels = np.array([0.1, 0.5, 0.9, 0.99])
    assert np.quantile(gaps, levels) == pytest.approx(-np.log1p(-levels) / 2, rel=0.05)


@pytest.mark.parametrize("arrival", ["closed_loop", "batch"])
def test_a_closed_loop_and_a_batch_arrive_at_0(arrival: str) -> None:
    requests = workload(arrival).requests(0)
    assert not requests.arrival_s.any()
    assert requests.concurrency == (7 if arrival == "closed_loop" else 0)


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_stream(arrival: str) -> None:
    one, same, other = (workload(arrival).requests(seed) for seed in (5, 5, 6))
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "group"):
        assert getattr(one, name).tobytes() == getattr(same, name).tobytes()
    assert not np.array_equal(one.prompt_tokens, other.prompt_tokens)
    assert np.array_equal(one.arrival_s, other.arrival_s) == (arrival not in {"poisson", "gamma"})


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_other_lengths_leave_arrivals_and_the_other_lengths_bit_identical(lengths: Lengths) -> None:
    base = workload().requests(1)
    changed = workload(prompt=lengths).requests(1)
    assert changed.arrival_s.tobytes() == base.arrival_s.tobytes()
    assert changed.output_tokens.tobytes() == base.output_tokens.tobytes()


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_other_arrivals_leave_lengths_bit_identical(arrival: str) -> None:
    base, changed = workload().requests(1), workload(arrival).requests(1)
    assert changed.prompt_tokens.tobytes() == base.prompt_tokens.tobytes()
    assert changed.output_tokens.tobytes() == base.output_tokens.tobytes()


def test_prompt_and_output_of_the_same_law_are_different_draws() -> None:
    requests = workload(n=20_000, prompt=LOGNORMAL, output=LOGNORMAL).requests(2)
    logs = np.log(requests.prompt_tokens), np.log(requests.output_tokens)
    assert abs(np.corrcoef(*logs)[0, 1]) < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("arrival", OPEN)
def test_twice_the_rate_halves_every_arrival_time(arrival: str) -> None:
    slow = workload(arrival)
    fast = replace(slow, rate_per_s=10.0)
    assert np.array_equal(fast.requests(9).arrival_s * 2, slow.requests(9).arrival_s)


@pytest.mark.parametrize("arrival", OPEN)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_more_requests_only_append(arrival: str, lengths: Lengths) -> None:
    few, many = (workload(arrival, n, lengths, lengths).requests(7) for n in (100, 1000))
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:100])


def test_fixed_lengths_are_fixed() -> None:
    assert set(workload(prompt=FIXED).requests(0).prompt_tokens) == {100}


def test_uniform_lengths_take_every_value_equally_often() -> None:
    values, counts = np.unique(workload(n=40_000, prompt=UNIFORM).requests(0).prompt_tokens, return_counts=True)
    assert list(values) == [3, 4, 5, 6]
    assert counts / 40_000 == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 40_000))


def test_lognormal_lengths_have_their_median_mean_and_bound() -> None:
    tokens = workload(n=100_000).requests(0).output_tokens
    assert np.median(tokens) == pytest.approx(200, rel=0.02)
    assert tokens.mean() == pytest.approx(200 * np.exp(0.9**2 / 2), rel=0.02)
    clipped = workload(n=100_000, output=replace(LOGNORMAL, max_tokens=500)).requests(0).output_tokens
    assert np.array_equal(clipped, np.minimum(tokens, 500))


def test_quantile_lengths_have_the_given_quantiles() -> None:
    tokens = workload(n=100_000).requests(0).prompt_tokens
    assert np.quantile(tokens, [0.25, 0.5, 0.9, 0.95]) == pytest.approx([50.5, 100, 1000, 3000], rel=0.05)
    assert tokens.min() >= 1
    assert tokens.max() <= 5000


def test_a_length_is_never_below_one_token() -> None:
    tiny = Lengths(kind="lognormal", median_tokens=1.0, sigma=3.0)
    assert workload(prompt=tiny).requests(0).prompt_tokens.min() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_requests": 0}, r"workload\.num_requests must be >= 1, got 0"),
        ({"arrival": "weibull"}, r"workload\.arrival must be one of poisson, .*batch, got 'weibull'"),
        ({"rate_per_s": -1.0}, r"workload\.rate_per_s must be > 0, got -1"),
        ({"rate_per_s": 0.0}, r"workload\.rate_per_s must be > 0, got 0"),
        ({"rate_per_s": float("nan")}, r"workload\.rate_per_s must be > 0, got nan"),
        ({"rate_per_s": float("inf")}, r"workload\.rate_per_s must be > 0, got inf"),
        ({"rate_per_s": None}, r"workload\.rate_per_s must be set with arrival=poisson"),
        ({"cv": 2.0}, r"workload\.cv has no effect with arrival=poisson, got 2.0"),
        ({"concurrency": 2}, r"workload\.concurrency has no effect with arrival=poisson"),
        ({"arrival": "gamma"}, r"workload\.cv must be set with arrival=gamma"),
        ({"arrival": "gamma", "cv": 0.0}, r"workload\.cv must be > 0, got 0"),
        ({"arrival": "batch"}, r"workload\.rate_per_s has no effect with arrival=batch"),
        (
            {"arrival": "closed_loop", "rate_per_s": None, "concurrency": 0},
            r"concurrency must lie in \[1, 1000\], got 0",
        ),
        ({"arrival": "closed_loop", "rate_per_s": None, "concurrency": 1001}, r"\[1, 1000\], got 1001"),
        ({"prompt": Lengths(kind="zipf")}, r"workload\.prompt\.kind must be one of fixed, .*, got 'zipf'"),
        ({"prompt": Lengths(kind="fixed")}, r"workload\.prompt\.tokens must be set with kind=fixed"),
        ({"output": Lengths(kind="fixed", tokens=0)}, r"workload\.output\.tokens must be >= 1, got 0"),
        ({"output": Lengths(kind="fixed", tokens=9, sigma=1.0)}, r"workload\.output\.sigma has no effect"),
        ({"prompt": Lengths(kind="uniform", min_tokens=9, max_tokens=8)}, r"prompt\.max_tokens must be >= 9, got 8"),
        ({"prompt": Lengths(kind="lognormal", median_tokens=9, sigma=0.0)}, r"prompt\.sigma must be > 0, got 0"),
        ({"prompt": replace(QUANTILES, quantile_tokens=[1, 2, 3])}, r"as many entries as probabilities .* got 3 and 4"),
        ({"prompt": replace(QUANTILES, probabilities=[0, 0.5, 0.5, 1])}, r"probabilities must rise from 0 to 1"),
        ({"prompt": replace(QUANTILES, probabilities=[0.1, 0.5, 0.9, 1])}, r"probabilities must rise from 0 to 1"),
        ({"prompt": replace(QUANTILES, quantile_tokens=[1, 5, 4, 9])}, r"quantile_tokens must be >= 1 and non-decr"),
        ({"prompt": replace(QUANTILES, quantile_tokens=[0, 5, 6, 9])}, r"quantile_tokens must be >= 1 and non-decr"),
    ],
)
def test_bad_settings_are_refused_with_field_bound_and_value(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(workload(), **change)
