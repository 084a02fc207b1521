"""Clients: who sends which request when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from sim.request import SENT_AT_ARRIVAL, Requests
from sim.serving.clock import ARRIVAL, PLAN, SEND, Environment, Event, Process, Timetable, at, tick
from sim.serving.ticks import ticks_array


class Door(Protocol):
    """Where requests are sent."""

    def send(self, request: int) -> None:
        """`request` arrives now."""

    def send_freed(self, request: int) -> None:
        """`request` arrives now, after the steps that end now."""


class Clients(ABC):
    """The clients of one stream.

    Attributes:
        wait: whether anyone waits for the end of a request before sending another.
        answer_at_once: whether one may be sent at the very instant at which another ends.
    """

    wait = True
    answer_at_once = False

    @abstractmethod
    def run(self) -> Process:
        """The process that sends what waits for no other request."""

    @abstractmethod
    def ended(self, requests: Iterable[int], now: int) -> None:
        """The last token of each of `requests` came now, or its client gave up, or it was lost."""


class OpenStream(Clients):
    """Every request is sent at its arrival."""

    wait = False

    def __init__(self, env: Environment, requests: Requests, door: Door) -> None:
        self._env, self._requests, self._door = env, requests, door

    def run(self) -> Process:
        return self._send_at(enumerate(ticks_array(self._requests.arrival_s).data))

    def ended(self, requests: Iterable[int], now: int) -> None:
        """Nobody waits."""

    def _send_at(self, rows: Iterable[tuple[int, int]]) -> Process:
        """Sends each request of `rows` at its tick."""
        for request, time in rows:
            if time > self._env.now:
                yield at(self._env, time, ARRIVAL)
            self._door.send(request)


class Chains(OpenStream):
    """A request may follow another: it is sent so many seconds after the other's end.

    Args:
        env: the clock.
        requests: the stream, with `after` and `think_s`.
        door: where they are sent.
        later: sends at a later tick.
    """

    wait = True

    def __init__(self, env: Environment, requests: Requests, door: Door, later: Timetable) -> None:
        assert requests.after is not None and requests.think_s is not None
        OpenStream.__init__(self, env, requests, door)
        self._later = later
        self._freed = Timetable(env, SEND, door.send_freed)
        self._after: list[int] = requests.after.tolist()
        self._think: list[int] = ticks_array(requests.think_s).tolist()
        self._followers: dict[int, list[int]] = {}
        for request, before in enumerate(self._after):
            if before != SENT_AT_ARRIVAL:
                self._followers.setdefault(before, []).append(request)
        self.answer_at_once = any(self._think[r] == 0 for rows in self._followers.values() for r in rows)

    def run(self) -> Process:
        times = ticks_array(self._requests.arrival_s).tolist()
        return self._send_at((r, times[r]) for r, before in enumerate(self._after) if before == SENT_AT_ARRIVAL)

    def ended(self, requests: Iterable[int], now: int) -> None:
        """Whoever follows them thinks, then sends."""
        for request in requests:
            for follower in self._followers.pop(request, ()):
                think = self._think[follower]
                if think:
                    self._later.add(now + think, follower)
                else:
                    self._freed.add(now, follower)


class ClosedLoop(Clients):
    """So many requests are in flight at once: the end of any sends the next."""

    answer_at_once = True

    def __init__(self, env: Environment, requests: Requests, door: Door) -> None:
        self._env, self._door = env, door
        self._concurrency, self._requests = requests.concurrency, len(requests)
        self._sent = self._free = 0

    def run(self) -> Process:
        """Sends the first of them."""
        self._sent = min(self._concurrency, self._requests)
        for request in range(self._sent):
            self._door.send(request)
        yield at(self._env, tick(self._env), PLAN)

    def ended(self, requests: Iterable[int], now: int) -> None:
        """As many are sent once everything that ends now has ended."""
        if not self._free:
            event = at(self._env, now, SEND)
            assert event.callbacks is not None
            event.callbacks.append(self._send_freed)
        self._free += sum(1 for _ in requests)

    def _send_freed(self, _: Event) -> None:
        first, self._sent = self._sent, min(self._sent + self._free, self._requests)
        self._free = 0
        for request in range(first, self._sent):
            self._door.send_freed(request)


def clients_of(env: Environment, requests: Requests, door: Door, later: Timetable) -> Clients:
    """The clients that send `requests`; arguments as for `Chains`."""
    if requests.concurrency:
        return ClosedLoop(env, requests, door)
    if requests.after is not None and bool((requests.after != SENT_AT_ARRIVAL).any()):
        return Chains(env, requests, door, later)
    return OpenStream(env, requests, door)


def patience(requests: Requests) -> list[int] | None:
    """Ticks from arrival after which each client gives up, 0 for never; None where none ever does."""
    if requests.cancel_s is None or not np.isfinite(requests.cancel_s).any():
        return None
    finite = np.isfinite(requests.cancel_s)
    waits = np.maximum(ticks_array(np.where(finite, requests.cancel_s, 0.0)), 1)
    found: list[int] = np.where(finite, waits, 0).tolist()
    return found
