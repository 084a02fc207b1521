"""The waterfall: from the ideal speedup to the achieved one, each bar a price that was really paid or repriced.

The measure is the mean time per output token (TPOT) of the requests. Without SD it is a weighted sum of the durations
of the plain run's steps, so it can be priced again under any change to them. Each bar is one change more:

1. ideal: every step emits drafts + 1 tokens and lasts as long as without SD;
2. acceptance: a request emits its own acceptance length per round instead;
3. drafts past the end: less what its last round drafts beyond its output;
4. draft, verify: expert loads, verify: compute, verify: attention, rejection, host and graphs: rounds last longer, by
   cause (`sim.cost.causes`), over the batches of the plain run;
5. prompts: prefill beside and between the rounds takes its whole time again, the drafter's included;
6. batching and KV: the simulated run with SD, whose batches, queue and KV pool are its own.

A bar is TPOT before over TPOT after its change; the ideal times all bars is the speedup, whatever the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.cost.causes import CAUSES, extra_seconds
from sim.cost.shape import StepShape
from sim.metrics.summary import Times, block_seconds, block_shape
from sim.result import Result

BARS = ("acceptance", "drafts past the end", *CAUSES, "prompts", "batching and KV")
"""In order."""

Column = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The ideal speedup in mean TPOT and the factors that lead from it to the achieved one.

    Attributes:
        ideal: mean drafts of a round + 1.
        factors: bar -> factor, in the order of `BARS`.
    """

    ideal: float
    factors: dict[str, float]

    @property
    def speedup(self) -> float:
        """What was achieved."""
        return self.ideal * prod(self.factors.values())

    def as_dict(self) -> dict[str, Any]:
        """For `summary.json`."""
        return {"measure": "tpot", "ideal": self.ideal, "factors": dict(self.factors), "speedup": self.speedup}


def waterfall(plain: Result, speculated: Result) -> Waterfall | None:
    """The waterfall of two runs of the same requests, without and with SD.

    None where there is no TPOT speedup to explain: other requests, none with two output tokens, or an interrupted run.
    """
    if plain.partial or speculated.partial or len(plain.requests) != len(speculated.requests):
        return None
    before_s, after_s = _tpot_s(plain), _tpot_s(speculated)
    counted = np.isfinite(before_s)
    if not counted.any() or not np.isfinite(after_s).any() or not sum(speculated.recorder.rounds):
        return None
    plain_s, ideal = float(np.nanmean(before_s)), 1.0 + _mean_drafts(speculated)
    share = np.where(counted, 1.0 / np.maximum(plain.requests.output_tokens - 1, 1), 0.0) / counted.sum()
    tokens = (np.ones(len(share)), *_tokens_per_round(speculated, counted))
    plainly, emitting, keeping = (_block_weights(plain, share / each) for each in tokens)
    step_s, prompt_s, causes_s, prefill_s = _repriced(plain, speculated)
    # What no step of a request's own replica covers (after failures): nothing, in most runs.
    gap_s = plain_s - float(plainly @ (step_s + prompt_s))
    gaps_s = [gap_s * float(share @ (1.0 / each)) / float(share.sum()) for each in tokens[1:]]
    times_s = [
        plain_s / ideal,
        *(float(w @ (step_s + prompt_s)) + gap for w, gap in zip((emitting, keeping), gaps_s, strict=True)),
    ]
    for seconds in causes_s.values():
        step_s = step_s + seconds
        times_s.append(float(keeping @ (step_s + prompt_s)) + gaps_s[1])
    times_s += [float(keeping @ step_s + plainly @ prefill_s) + gap_s, float(np.nanmean(after_s))]
    return Waterfall(ideal, {name: times_s[i] / times_s[i + 1] for i, name in enumerate(BARS)})


def _tpot_s(result: Result) -> Column:
    return Times.of(result.recorder).tpot_s(result.requests.output_tokens)


def _tokens_per_round(speculated: Result, counted: NDArray[np.bool_]) -> tuple[Column, Column]:
    """Per request, tokens of a round: as accepted, and without those past the end of the output.

    Requests that did not finish with SD, or finished in one token, take the means of the others.
    """
    recorder = speculated.recorder
    rounds, accepted = (np.asarray(column, dtype=np.float64) for column in (recorder.rounds, recorder.accepted))
    done = counted & (rounds > 0) & (np.asarray(recorder.finish) >= 0)

    def per_round(tokens: Column) -> Column:
        mean = float(tokens[done].sum() / rounds[done].sum()) if done.any() else 1.0
        return np.where(done, tokens / np.where(done, rounds, 1.0), mean)

    return per_round(accepted + rounds), per_round(
        np.asarray(speculated.requests.output_tokens, dtype=np.float64) - 1.0
    )


def _mean_drafts(speculated: Result) -> float:
    """Drafts asked for, over all rounds."""
    return sum(drafts * share for drafts, share, _ in _lengths(speculated))


def _lengths(speculated: Result) -> list[tuple[int, float, float]]:
    """Every draft length asked for, its share of the rounds, and its mean width."""
    blocks = speculated.recorder.blocks()
    rounds, lengths = blocks["steps"] * blocks["sequences"], blocks["drafts"]
    found = []
    for drafts in np.unique(lengths[rounds > 0]).tolist():
        chosen = lengths == drafts
        own = int(rounds[chosen].sum())
        found.append((drafts, own / int(rounds.sum()), int(blocks["verify_tokens"][chosen].sum()) / own))
    return found


def _block_weights(plain: Result, share: Column) -> Column:
    """Per block, the sum of `share` (by request) over the requests between first token and finish on its replica."""
    recorder, blocks = plain.recorder, plain.recorder.blocks()
    first, finish, replica = (np.asarray(c) for c in (recorder.first_token, recorder.finish, recorder.replica))
    weights = np.zeros(len(blocks["start"]))
    for number in np.unique(blocks["replica"]).tolist():
        rows = np.flatnonzero(blocks["replica"] == number)
        mine = np.flatnonzero((replica == number) & (share > 0))
        change = np.zeros(len(rows) + 1)
        np.add.at(change, np.searchsorted(blocks["start"][rows], first[mine]), share[mine])
        np.add.at(change, np.searchsorted(blocks["start"][rows], finish[mine]), -share[mine])
        weights[rows] = np.cumsum(change)[:-1]
    return weights


def _repriced(plain: Result, speculated: Result) -> tuple[Column, Column, dict[str, Column], Column]:
    """Of every block of the plain run, in seconds.

    What its steps take without prompts, what prompts add, what SD adds to the former by cause, and what prompts add
    to rounds. Prices are scaled to the durations that were recorded.
    """
    blocks = plain.recorder.blocks()
    shape, duration_s = block_shape(blocks), block_seconds(blocks)
    decoding, prompts = np.asarray(shape.sequences) > 0, np.asarray(shape.chunks) > 0
    decode = StepShape(sequences=shape.sequences, context_tokens=shape.context_tokens)
    scale = duration_s / plain.cost.seconds(replace(shape, width=1))
    step_s = np.where(prompts, np.where(decoding, scale * plain.cost.seconds(decode), 0.0), duration_s)
    causes_s = {name: np.zeros(len(scale)) for name in CAUSES}
    prefill_s = np.zeros(len(scale))
    some = StepShape(sequences=np.maximum(shape.sequences, 1), context_tokens=shape.context_tokens)
    for drafts, part, width in _lengths(speculated):
        cost = speculated.cost_at(drafts)
        for name, seconds in extra_seconds(cost, some.sequences, some.context_tokens, width).items():
            causes_s[name] += part * scale * np.where(decoding, seconds, 0.0)
        rounds_s = np.where(decoding, cost.seconds(replace(decode, width=width)), 0.0)
        prefill_s += part * scale * np.where(prompts, cost.seconds(replace(shape, width=width)) - rounds_s, 0.0)
    return step_s, duration_s - step_s, causes_s, prefill_s
