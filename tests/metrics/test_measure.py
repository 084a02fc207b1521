"""Windows and goodput on runs worked by hand, and the laws between them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.cost.lines import TICKS_PER_S
from sim.metrics.goodput import Slo
from sim.metrics.measure import Measure, measured
from sim.metrics.record import NOT_YET, Recorder
from sim.metrics.summary import Times
from sim.metrics.window import Window
from sim.request import Requests

# One request a second for eight seconds. (TTFT, TPOT) in seconds; five tokens each, but one of a single token.
TTFT = [0.5, 0.5, 2.0, 0.5, 0.5, 1.0, 0.5, 0.5]
TPOT = [0.25, 0.25, 0.25, 0.5, 0.25, 0.25, 0.25, 0.25]
TOKENS = [5, 5, 5, 5, 1, 5, 5, 5]
GROUP = [0, 1, 0, 1, 0, 1, 0, 1]
STRICT = Slo(ttft_s=1.0, tpot_s=0.25)


def requests_of(n: int, tokens: list[int], group: list[int]) -> Requests:
    return Requests(
        arrival_s=np.arange(n, dtype=float),
        prompt_tokens=np.ones(n, np.int64),
        output_tokens=np.array(tokens, np.int64),
        group=np.array(group, np.int32),
        groups=("chat", "job"),
    )


def run(unfinished: tuple[int, ...] = ()) -> tuple[Requests, Recorder]:
    requests, recorder = requests_of(8, TOKENS, GROUP), Recorder(8, keep_steps=False)
    first = np.arange(8) + np.array(TTFT)
    finish = first + (np.array(TOKENS) - 1) * np.array(TPOT)
    recorder.arrival = (np.arange(8) * TICKS_PER_S).tolist()
    recorder.first_token = (first * TICKS_PER_S).astype(int).tolist()
    recorder.finish = (finish * TICKS_PER_S).astype(int).tolist()
    for request in unfinished:
        recorder.first_token[request] = recorder.finish[request] = NOT_YET
    return requests, recorder


def measure(unfinished: tuple[int, ...] = (), **settings: Any) -> dict[str, Any]:
    return measured(Measure(**settings), *run(unfinished))


def test_nothing_asked_nothing_said() -> None:
    assert measure() == {"window": {}, "goodput": {}, "confidence": {}}


def test_goodput_by_hand() -> None:
    """Last finish at 8.5 s. Request 2 is late (TTFT), 3 is slow (TPOT); request 4 has no TPOT and meets the SLO."""
    goodput = measure(slo={"all": STRICT})["goodput"]
    assert goodput["requests"] == 8
    assert goodput["requests_per_s"] == pytest.approx(6 / 8.5)
    assert goodput["attainment"] == pytest.approx(6 / 8)
    assert goodput["classes"] == {
        "chat": {"requests": 4, "requests_per_s": pytest.approx(3 / 8.5), "attainment": 0.75},
        "job": {"requests": 4, "requests_per_s": pytest.approx(3 / 8.5), "attainment": 0.75},
    }


def test_a_bound_is_met_at_the_bound_and_missed_just_above() -> None:
    assert measure(slo={"all": Slo(ttft_s=2.0)})["goodput"]["attainment"] == 1
    assert measure(slo={"all": Slo(ttft_s=1.999)})["goodput"]["attainment"] == 7 / 8
    assert measure(slo={"all": Slo(e2e_s=1.5)})["goodput"]["attainment"] == 5 / 8


def test_classes_have_bounds_of_their_own_and_those_without_any_do_not_count() -> None:
    only_chat = measure(slo={"chat": STRICT})["goodput"]
    assert only_chat["requests"] == 4
    assert list(only_chat["classes"]) == ["chat"]
    mixed = measure(slo={"chat": STRICT, "all": Slo(e2e_s=100.0)})["goodput"]["classes"]
    assert (mixed["chat"]["attainment"], mixed["job"]["attainment"]) == (0.75, 1.0)


def test_what_did_not_finish_misses_every_slo() -> None:
    goodput = measure(unfinished=(0, 7), slo={"all": Slo(ttft_s=9.0)})["goodput"]
    assert (goodput["requests"], goodput["attainment"]) == (8, 6 / 8)


def test_a_window_by_time_by_hand() -> None:
    """Of [1.5 s, 5 s] requests 2, 3 and 4 arrive in it; 0, 1, 4 and 2 finish in it, at 1.5, 2.5, 4.5 and 5 s."""
    found = measure(window=Window(warm_up_s=1.5, cool_down_s=2.0), slo={"all": STRICT})
    window = found["window"]
    assert (window["from_s"], window["until_s"], window["requests"]) == (1.5, 5.0, 3)
    assert window["ttft_s"]["mean"] == pytest.approx(1.0)
    assert window["tpot_s"]["mean"] == pytest.approx(0.375)
    assert window["throughput"]["requests_per_s"] == pytest.approx(4 / 3.5)
    assert window["throughput"]["output_tokens_per_s"] == pytest.approx((5 + 5 + 5 + 1) / 3.5)
    assert found["goodput"]["requests_per_s"] == pytest.approx(1 / 3.5)


def test_a_window_by_requests_is_the_window_by_time_between_arrivals() -> None:
    by_requests = measure(window=Window(warm_up_requests=2, cool_down_requests=3))["window"]
    assert (by_requests["from_s"], by_requests["until_s"], by_requests["requests"]) == (2.0, 5.0, 3)
    by_time = measure(window=Window(warm_up_s=2.0, cool_down_s=2.0))["window"]
    assert by_time == by_requests


def test_without_a_cool_down_the_window_lasts_to_the_last_finish() -> None:
    window = measure(window=Window(warm_up_requests=1))["window"]
    assert (window["from_s"], window["until_s"], window["requests"]) == (1.0, 8.5, 7)


@pytest.mark.parametrize("cut", range(8))
def test_two_windows_that_touch_count_every_request_once(cut: int) -> None:
    """What one window leaves out as its cool-down is what the other counts behind its warm-up."""
    times = Times.of(run()[1])
    columns = (times.arrival_s, times.finish_s)
    before = Window(cool_down_requests=8 - cut).interval(*columns).counted if cut else np.zeros(8, bool)
    behind = Window(warm_up_requests=cut).interval(*columns).counted
    assert (before ^ behind).all()


def test_confidence_is_of_the_window_in_order_of_arrival() -> None:
    n = 400
    rng = np.random.default_rng(0)
    ttft = rng.exponential(1.0, n)
    requests = requests_of(n, [1] * n, [0] * n)
    recorder = Recorder(n, keep_steps=False)
    shuffled = rng.permutation(n)
    recorder.arrival = (shuffled * TICKS_PER_S).tolist()
    finish = shuffled + ttft[shuffled]
    recorder.first_token = recorder.finish = (finish * TICKS_PER_S).astype(int).tolist()
    asked = Measure(confidence=0.9, slo={"all": Slo(ttft_s=1.0)}, window=Window(warm_up_requests=100))
    found = measured(asked, requests, recorder)["confidence"]
    assert found["level"] == 0.9
    assert found["ttft_s"]["mean"] == pytest.approx(ttft[100:].mean())
    size = found["ttft_s"]["batch_size"]
    batches = ttft[100:][: len(ttft[100:]) // (size // 2) * (size // 2)]
    means = batches[: size * found["ttft_s"]["batches"]].reshape(-1, size).mean(axis=1)
    assert found["ttft_s"]["half_width"] == pytest.approx(
        {20: 1.7291, 10: 1.8331}[len(means)] * means.std(ddof=1) / np.sqrt(len(means)), rel=1e-4
    )
    assert found["attainment"]["mean"] == pytest.approx((ttft[100:] <= 1).mean())
    assert found["tpot_s"] == {}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": {"warm_up_s": -1.0}}, r"measure\.window\.warm_up_s must be finite and >= 0, got -1"),
        ({"window": {"warm_up_s": 1.0, "warm_up_requests": 2}}, r"warm_up_s and warm_up_requests exclude each other"),
        ({"window": {"warm_up_requests": 8}}, r"measure\.window leaves none of 8 requests"),
        ({"window": {"warm_up_s": 7.5}}, r"measure\.window leaves none of 8 requests"),
        ({"window": {"warm_up_s": 4.0, "cool_down_s": 4.0}}, r"measure\.window leaves none of 8 requests"),
        ({"slo": {"chat": {}}}, r"measure\.slo must bound one at least of ttft_s, tpot_s and e2e_s"),
        ({"slo": {"all": {"tpot_s": 0.0}}}, r"measure\.slo: tpot_s must be > 0, got 0"),
        ({"slo": {"code": {"tpot_s": 1.0}}}, r"measure\.slo must name groups .*\(chat, job\) or all, got code"),
        (
            {"slo": {name: {"tpot_s": 1.0} for name in ("chat", "job", "all")}},
            r"measure\.slo\.all has no effect where every group",
        ),
        ({"confidence": 95.0}, r"measure\.confidence must lie in \(0, 1\), got 95"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    def build() -> dict[str, Any]:
        built = dict(settings)
        if "window" in built:
            built["window"] = Window(**built["window"])
        if "slo" in built:
            built["slo"] = {name: Slo(**bounds) for name, bounds in built["slo"].items()}
        return measure(**built)

    with pytest.raises(ValueError, match=message):
        build()


def test_a_batch_has_no_length_to_cut_by_requests() -> None:
    requests, recorder = run()
    recorder.arrival = [0] * 8
    with pytest.raises(ValueError, match=r"measure\.window has no length"):
        measured(Measure(window=Window(cool_down_requests=2)), requests, recorder)
    whole = measured(Measure(slo={"all": STRICT}), replace(requests, arrival_s=np.zeros(8)), recorder)
    assert whole["goodput"]["requests"] == 8
