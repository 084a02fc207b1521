"""Step times in the seconds of a recorded run in which it only decoded: tokens that came against tokens priced.

The batch of every instant is rebuilt from the requests' first and last tokens: while nothing waits, each of them emits
one token per step, so its context follows from the steps until its last token. Seconds are used where the record shows
no prefill and nobody waiting (nobody preempted, that is).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.cost.host import Engine
from sim.cost.lines import TICKS_PER_S
from sim.cost.profile import LayerProfile
from sim.cost.profile_prices import ProfilePrices
from validation.vllm_runs import Run

INSTANTS = 20
"""At which the batch of a second is looked at."""

OFFSETS_S = np.arange(-1.0, 1.0, 0.02)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """A second of pure decoding: sequences on average, step time seen, and that priced over that seen, less one."""

    sequences: float
    step_s: float
    rel_error: float


def windows(run: Run, prices: ProfilePrices, profile: LayerProfile, engine: Engine, scale: float = 1.0) -> list[Window]:
    """Every second with pure decoding.

    Args:
        run: the record.
        prices: step times without a straggler's lead, which is known here for every instant.
        profile: the profile behind them.
        engine: its graph sizes.
        scale: of their kernels.
    """
    series, offset = run.series, clock_offset_s(run)
    ends = np.arange(1, len(series.running) + 1).astype(np.float64) - offset
    quiet = (series.waiting == 0) & (np.concatenate(([1.0], series.waiting[:-1])) == 0)
    pure = np.flatnonzero((series.prompt_tokens == 0) & (series.generated_tokens > 0) & quiet & (series.running > 0))
    steps_done = _steps_done(run, ends)
    found = []
    for second in pure.tolist():
        instants = ends[second] - 1.0 + (np.arange(INSTANTS) + 0.5) / INSTANTS
        batches = [_contexts(run, instant, steps_done, ends) for instant in instants.tolist()]
        sizes = np.array([len(batch) for batch in batches], dtype=np.float64)
        steps_s = np.array([_step_s(batch, prices, profile, engine, scale) for batch in batches])
        if not sizes.all():
            continue
        seen = float(series.generated_tokens[second])
        priced = float((sizes / steps_s).mean())
        found.append(Window(float(sizes.mean()), float(sizes.mean()) / seen, seen / priced - 1.0))
    return found


def clock_offset_s(run: Run) -> float:
    """Seconds by which the series' clock is ahead of the requests': where its running requests agree best."""
    series, seen = run.series, run.seen
    rows = np.flatnonzero((series.waiting == 0) & (series.prompt_tokens == 0) & (series.running > 0))
    if not rows.size:
        raise ValueError(f"the run of {run.gpu} has no second without prefill and queue")
    errors = []
    for offset in OFFSETS_S.tolist():
        times = rows[:, None] + 1.0 - offset
        running = ((seen.first_s <= times) & (times < seen.last_s)).sum(axis=1)
        errors.append(int(np.abs(running - series.running[rows]).sum()))
    best = np.flatnonzero(np.array(errors) == min(errors))
    return float(OFFSETS_S[best].mean())


def _steps_done(run: Run, ends: Floats) -> Floats:
    """Steps since the start of the record, at the end of every second: tokens that came, over those who emit one."""
    seen, starts = run.seen, ends - 1.0
    inside = np.minimum(seen.last_s, ends[:, None]) - np.maximum(seen.first_s, starts[:, None])
    decoding = np.maximum(inside, 0.0).sum(axis=1)
    return np.cumsum(run.series.generated_tokens / np.maximum(decoding, 1e-9) * (decoding > 0))


def _contexts(run: Run, instant: float, steps_done: Floats, ends: Floats) -> Floats:
    """Cached tokens of every sequence that decodes at `instant`."""
    seen, requests = run.seen, run.requests
    rows = np.flatnonzero((seen.first_s <= instant) & (instant < seen.last_s))
    left = np.interp(seen.last_s[rows], ends, steps_done) - np.interp(instant, ends, steps_done)
    return np.asarray(requests.prompt_tokens[rows] + np.maximum(requests.output_tokens[rows] - left, 0.0))


def _step_s(contexts: Floats, prices: ProfilePrices, profile: LayerProfile, engine: Engine, scale: float) -> float:
    """The price of a step, with the lead that this batch has."""
    if not len(contexts):
        return 1.0
    sequences, mean = len(contexts), np.array([float(contexts.mean())])
    uniform_s = profile.attention.decode_s(sequences, mean)
    padded, lead = int(np.asarray(engine.padded_tokens(sequences))), float(contexts.max()) - float(mean[0])
    extra = profile.straggled_s(sequences, padded, uniform_s, mean, lead) - uniform_s
    ticks = prices.decode(sequences, 0).at(round(float(contexts.sum())))
    return ticks / TICKS_PER_S + scale * float(extra[0])
