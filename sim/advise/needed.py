"""Where the acceptance is unknown: how much of it SD needs to pay under the user's own load."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.advise.contest import Drafted
from sim.advise.static import speculation_of, with_drafts
from sim.config import Experiment
from sim.metrics.summary import speedup
from sim.request import Requests
from sim.result import Result
from sim.run import simulate
from sim.speculation.acceptance import ConstantRate

_HALVINGS = 5
"""Of the rate's interval [0, 1]: known to within 0.02."""


@dataclass(frozen=True, slots=True, eq=False)
class Needed:
    """What a draft length needs to pay, by simulation.

    Attributes:
        drafts: of each round.
        rate: least acceptance rate alpha that gains; None where not even accepting every draft does.
        length: tokens per round at that rate, the bonus token counted.
        most_gain: the gain if every draft were accepted.
        result: the run in which every draft was accepted.
    """

    drafts: int
    rate: float | None
    length: float | None
    most_gain: float
    result: Result


def needed(plain: Result, drafted: Drafted, requests: Requests, objective: str) -> list[Needed]:
    """For one draft, three, and the most considered.

    Raises:
        InfeasibleError: the drafter does not fit beside the target.
    """
    most = drafted.experiment.drafts
    before = plain.summary()
    found = []
    for drafts in sorted({1, min(3, most), most}):
        experiment = with_drafts(drafted.experiment, drafts)
        best = simulate(_with_rate(experiment, 1.0), requests)
        most_gain = speedup(before, best.summary())[objective]
        rate = length = None
        if most_gain > 1.0:
            low, high, at_high = 0.0, 1.0, best
            for _ in range(_HALVINGS):
                middle = 0.5 * (low + high)
                result = simulate(_with_rate(experiment, middle), requests)
                if speedup(before, result.summary())[objective] > 1.0:
                    high, at_high = middle, result
                else:
                    low = middle
            rate, length = high, at_high.summary()["speculation"]["acceptance_length"]
        found.append(Needed(drafts, rate, length, most_gain, best))
    return found


def _with_rate(experiment: Experiment, rate: float) -> Experiment:
    return replace(experiment, speculation=replace(speculation_of(experiment), acceptance=ConstantRate(rate=rate)))
