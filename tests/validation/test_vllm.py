"""The vLLM suite on a run of our own making, whose truth is known, and on the recorded ones where they are at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.cost.host import read_engine
from sim.cost.lines import TICKS_PER_S
from sim.cost.profile import LayerProfile
from sim.request import Requests
from tests.cost import profile_rows as own
from validation import vllm
from validation.vllm_batches import fit_host
from validation.vllm_replay import Player, statistics, tpot_s
from validation.vllm_runs import Deployment, Run, Series, Times
from validation.vllm_windows import clock_offset_s, windows

DATA = Path(__file__).parents[3] / "shared" / "data"
ENGINE = read_engine("vllm_0_19")
recorded = pytest.mark.skipif(not (DATA / "llmservingsim/vllm_e2e").is_dir(), reason="needs llmservingsim/vllm_e2e")


def player(seen: Times, requests: Requests, series: Series) -> Player:
    deployment = Deployment(max_seqs=64, max_batched_tokens=2048, kv_blocks=5000)
    run = Run(gpu="own", requests=requests, deployment=deployment, seen=seen, series=series)
    return Player(run, ENGINE, LayerProfile.from_rows(own.rows(skewed=False), own.LAYERS))


def stream(n: int, gap_s: float) -> Requests:
    rng = np.random.default_rng(3)
    return Requests(
        arrival_s=np.cumsum(rng.exponential(gap_s, n)),
        prompt_tokens=rng.integers(50, 900, n),
        output_tokens=rng.integers(500, 3000, n),
        group=np.zeros(n, dtype=np.int32),
    )


NO_TIMES = Times(admitted_s=np.zeros(0), first_s=np.zeros(0), last_s=np.zeros(0))
SERIES = ("prompt_tokens", "generated_tokens", "running", "waiting", "kv_share")
NO_SERIES = Series(**dict.fromkeys(SERIES, np.zeros(0)))


def decoded(made: Player, slower: float, ahead_s: float) -> tuple[Times, Series]:
    """A batch that starts at once and decodes to the end, one step after the other; the series' clock is ahead."""
    requests, prices = made.run.requests, made.prices(1.0, leads=False)
    left, context = requests.output_tokens - 1, requests.prompt_tokens.copy()
    first, last = np.full(len(requests), 0.2), np.full(len(requests), 0.2)
    now, ends, running = 0.2, [0.2], [len(requests)]
    while (alive := left > 0).any():
        now += slower * prices.decode(int(alive.sum()), 0).at(int(context[alive].sum())) / TICKS_PER_S
        left, context, last = left - alive, context + alive, np.where(alive, now, last)
        ends.append(now)
        running.append(int(alive.sum()))
    seconds = np.arange(1, int(now + ahead_s) + 2)
    tokens = np.histogram(np.array(ends) + ahead_s, np.arange(len(seconds) + 1), weights=running)[0]
    there = (last[None, :] + ahead_s > seconds[:, None]).sum(axis=1)
    zero = np.zeros(len(seconds))
    series = Series(prompt_tokens=zero, generated_tokens=tokens, running=there, waiting=zero, kv_share=zero)
    return Times(admitted_s=first, first_s=first, last_s=last), series


@pytest.mark.parametrize("slower", [1.0, 1.05])
def test_windows_find_by_how_much_steps_were_slower(slower):
    requests = replace(stream(20, 0.1), arrival_s=np.zeros(20))
    requests = replace(requests, output_tokens=4 * requests.output_tokens)
    made = player(NO_TIMES, requests, NO_SERIES)
    seen, series = decoded(made, slower, ahead_s=0.3)
    run = replace(made.run, seen=seen, series=series)
    assert clock_offset_s(run) == pytest.approx(0.3, abs=0.15)
    found = windows(run, made.prices(1.0, leads=False), made.profile, ENGINE)
    assert len(found) >= 4
    errors = np.array([window.rel_error for window in found])
    assert errors.mean() == pytest.approx(1 / slower - 1, abs=0.015)


def test_a_replay_of_a_replay_has_no_error_and_gives_its_scale_back():
    requests = stream(60, 0.05)
    first = player(NO_TIMES, requests, NO_SERIES)
    made = player(first.replay(1.07).times, requests, NO_SERIES)
    everyone = np.ones(len(requests), dtype=np.bool_)
    assert made.fitted_scale(everyone) == pytest.approx(1.07, abs=2e-3)
    seen, again = (statistics(made.run, times, everyone, everyone, 0.0)
                   for times in (made.run.seen, made.replay(1.07).times))  # fmt: skip
    assert seen == again
    assert set(seen) == set(vllm.BARS) - {"decode_step"}


def test_slower_steps_are_seen_in_every_statistic():
    requests = stream(60, 0.05)
    made = player(NO_TIMES, requests, NO_SERIES)
    everyone = np.ones(len(requests), dtype=np.bool_)
    base, slow = (statistics(made.run, made.replay(scale).times, everyone, everyone, 0.0) for scale in (1.0, 1.2))
    for name, value in base.items():
        assert slow[name] < value if name == "throughput" else slow[name] > value, name


def test_without_data_it_says_so():
    (check,) = vllm.checks(None)
    assert check.value is None
    assert "--data" in check.note


@recorded
def test_the_preset_has_the_fitted_host_time():
    fit = fit_host(DATA, ENGINE)
    assert ENGINE.step_host_s == pytest.approx(fit.step_s, rel=0.03)
    assert fit.rel_error < 0.03


@recorded
@pytest.mark.parametrize(("gpu", "preemptions"), [("RTX4090", (150, 250)), ("RTXPRO6000", (0, 0))])
def test_recorded_runs_replay_within_the_trial(gpu, preemptions):
    made = Player.of(DATA, gpu, ENGINE)
    done = made.replay(1.0)
    assert preemptions[0] <= done.preemptions <= preemptions[1]
    tpot, seen = (float(tpot_s(made.run, times).mean()) for times in (done.times, made.run.seen))
    assert tpot == pytest.approx(seen, rel=0.06)
