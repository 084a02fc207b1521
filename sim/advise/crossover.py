"""The load at which SD turns from gain to loss, found by simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from sim.advise.load import Load, at_load
from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.metrics.summary import speedup
from sim.request import Requests
from sim.run import simulate

_HALVINGS = 4
"""A grid interval is at most a factor of 6 wide, so a crossing is known to within 6 %."""

Gains = Callable[[Load], float]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A load at which the gain passes 1.

    Attributes:
        at: the load, in the middle (geometric) between one on this side and one on that.
        turns: "negative" where SD gains below it and loses above, "positive" the other way.
    """

    at: Load
    turns: str


@dataclass(frozen=True, slots=True)
class GainCurve:
    """The gain of one policy over the load.

    Attributes:
        label: the policy.
        loads, gains: simulated points, loads growing.
        crossings: where the gain passes 1 between them.
    """

    label: str
    loads: tuple[Load, ...]
    gains: tuple[float, ...]
    crossings: tuple[Crossing, ...]

    @property
    def turns_negative(self) -> Load | None:
        """The highest load at which it turns negative; None where it does not."""
        return next((crossing.at for crossing in reversed(self.crossings) if crossing.turns == "negative"), None)


class Loads:
    """Gains of policies over the same requests at any load; the run without SD is shared by all of them.

    Args:
        experiment: the deployment without SD.
        requests: the stream at its own load.
        objective: the gain that counts.
    """

    def __init__(self, experiment: Experiment, requests: Requests, objective: str) -> None:
        self._plain = experiment
        self._requests = requests
        self._objective = objective
        self._without: dict[float, dict[str, object]] = {}

    def curve(self, label: str, experiment: Experiment, loads: list[Load]) -> GainCurve:
        """The gain of `experiment` at `loads`, and where it passes 1."""
        gains = [self.gain(experiment, load) for load in loads]
        found = crossings(lambda load: self.gain(experiment, load), loads, gains)
        return GainCurve(label, tuple(loads), tuple(gains), tuple(found))

    def gain(self, experiment: Experiment, load: Load) -> float:
        """How many times better than without SD; 0 where it cannot run."""
        requests = at_load(self._requests, load)
        if load.value not in self._without:
            self._without[load.value] = simulate(self._plain, requests).summary()
        try:
            with_sd = simulate(experiment, requests).summary()
        except InfeasibleError:
            return 0.0
        return speedup(self._without[load.value], with_sd)[self._objective]


def crossings(gain: Gains, loads: list[Load], gains: list[float]) -> list[Crossing]:
    """Where `gain` passes 1 between neighbouring loads, each interval halved (geometrically) a few times."""
    points = pairwise(zip(loads, gains, strict=True))
    return [
        Crossing(_crossing(gain, low, high, pays_below=below > 1.0), "negative" if below > 1.0 else "positive")
        for (low, below), (high, above) in points
        if (below > 1.0) != (above > 1.0)
    ]


def _crossing(gain: Gains, low: Load, high: Load, *, pays_below: bool) -> Load:
    for _ in range(_HALVINGS):
        middle = _between(low, high)
        if middle.value in (low.value, high.value):
            break
        if (gain(middle) > 1.0) == pays_below:
            low = middle
        else:
            high = middle
    return _between(low, high)


def _between(low: Load, high: Load) -> Load:
    middle = (low.value * high.value) ** 0.5
    return Load(low.kind, float(round(middle)) if low.kind == "concurrency" else middle)
