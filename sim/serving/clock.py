"""The clock: simulated time in whole ticks, and what comes first at one instant.

At one tick, and never in order of insertion: replicas die and come back, clients give up, requests arrive by schedule,
requests arrive that follow others or are sent again, KV arrives, steps end, prompts are handed over, requests are sent
that these ends set free, plans are made, transfers that they ask for begin, and prompts that they complete are
announced (whoever hears it plans again). Requests that come together are taken in
order of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush

import simpy
from simpy.events import Event, EventPriority

__all__ = [
    "ANNOUNCE",
    "ARRIVAL",
    "CANCEL",
    "FAILURE",
    "HAND_OVER",
    "LINK",
    "PLAN",
    "RECEIVED",
    "RETURN",
    "SEND",
    "STEP_END",
    "Clock",
    "Environment",
    "Event",
    "Process",
    "Timetable",
    "at",
    "tick",
]

FAILURE, CANCEL, ARRIVAL, RETURN, RECEIVED, STEP_END, HAND_OVER, SEND, PLAN, LINK, ANNOUNCE = map(
    EventPriority, range(1, 12)
)

Environment = simpy.Environment
Process = Generator[Event, None, None]


class Clock(Environment):
    """Simulated time in whole ticks, and how many events it took."""

    def __init__(self) -> None:
        super().__init__(initial_time=0)

    @property
    def events(self) -> int:
        """Events scheduled so far."""
        return int(next(self._eid))

    def run_out(self) -> None:
        """Until no event is left, or one fails: `run()`, without the calls per event that a time to stop at takes.

        Raises:
            Exception: what a process raised.
        """
        queue = self._queue
        while queue:
            self._now, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise event._value


def tick(env: Environment) -> int:
    """The tick it is."""
    return env._now  # type: ignore[return-value]


def at(env: Environment, time: int, priority: EventPriority) -> Event:
    """An event that happens at tick `time`, among those of the same tick in order of `priority`.

    As `Environment.schedule` does, but for an instant where that takes a delay.
    """
    event = Event.__new__(Event)
    event.env, event.callbacks, event._ok, event._value = env, [], True, None
    heappush(env._queue, (time, priority, next(env._eid), event))
    return event


class Timetable:
    """Requests that something happens to at later ticks.

    Args:
        env: the clock.
        priority: the place of that within a tick.
        happen: called with each request.
    """

    def __init__(self, env: Environment, priority: EventPriority, happen: Callable[[int], None]) -> None:
        self._env, self._priority, self._happen = env, priority, happen
        self._due: dict[int, list[int]] = {}

    def add(self, time: int, request: int) -> None:
        """It happens to `request` at tick `time`."""
        due = self._due.get(time)
        if due is not None:
            due.append(request)
            return
        self._due[time] = [request]
        event = at(self._env, time, self._priority)
        assert event.callbacks is not None
        event.callbacks.append(self._ring)

    def _ring(self, _: Event) -> None:
        for request in sorted(self._due.pop(tick(self._env))):
            self._happen(request)
