"""Replicas as SimPy processes, and the clients that send them requests.

At one instant the order is fixed and never that of insertion: requests arrive, steps end, requests are sent that
finishes set free, plans are made.
"""

from __future__ import annotations

from collections.abc import Generator

import simpy
from simpy.events import Event, EventPriority

from sim.metrics.record import Recorder
from sim.request import Requests
from sim.serving.block import Block
from sim.serving.rank import Rank
from sim.serving.router import Router
from sim.serving.sequence import Sequence
from sim.serving.ticks import ticks_array

_ARRIVAL, _STEP_END, _SEND, _PLAN = 1, 2, 3, 4

Process = Generator[Event, None, None]


class Clock(simpy.Environment):
    """Simulated time in whole ticks, and how many events it took."""

    def __init__(self) -> None:
        super().__init__(initial_time=0)

    @property
    def events(self) -> int:
        """Events scheduled so far."""
        return int(next(self._eid))


def at(env: simpy.Environment, time: int, priority: int) -> Event:
    """An event that happens at tick `time`, among those of the same tick in order of `priority`."""
    event = Event(env)
    event._ok, event._value = True, None
    env.schedule(event, EventPriority(priority), time - int(env.now))
    return event


class Replica:
    """One rank on a clock: plan, sleep until the block's end, commit."""

    def __init__(self, env: simpy.Environment, rank: Rank, settle: bool) -> None:
        self.rank = rank
        self.finished = 0
        self._env = env
        self._settle = settle
        self._block: Block | None = None
        self._alarm = Event(env)

    def run(self, fleet: ReplicaFleet, number: int) -> Process:
        """The process."""
        while True:
            self._block = self.rank.plan(int(self._env.now))
            if self._block is None:
                self._alarm = Event(self._env)
                yield self._alarm
                continue
            self._alarm = at(self._env, self._block.end, _STEP_END)
            yield self._alarm
            finished = self.rank.commit(self._block)
            self._block = None
            if finished:
                fleet.finished(number, finished)
            if self._settle:
                yield at(self._env, int(self._env.now), _PLAN)

    def receive(self, sequence: Sequence) -> None:
        """A request arrives now."""
        now, block = int(self._env.now), self._block
        end = block.end if block is not None else now
        self.rank.receive(sequence, block, now)
        if block is None:
            if not self._alarm.triggered:
                self._move_alarm(now, _PLAN)
        elif block.end != end:
            self._move_alarm(block.end, _STEP_END)

    def _move_alarm(self, time: int, priority: int) -> None:
        """The process that waits for the alarm wakes at another instant; the old event comes to nothing."""
        moved = at(self._env, time, priority)
        assert self._alarm.callbacks is not None
        moved.callbacks, self._alarm.callbacks = self._alarm.callbacks, []
        self._alarm = moved


class ReplicaFleet:
    """The replicas and their router, and how full they are."""

    def __init__(
        self, env: simpy.Environment, ranks: list[Rank], router: Router, requests: Requests, recorder: Recorder
    ) -> None:
        self.loads = [0] * len(ranks)
        self._env = env
        self._recorder = recorder
        self._router = router
        self._prompt: list[int] = requests.prompt_tokens.tolist()
        self._output: list[int] = requests.output_tokens.tolist()
        self._closed = requests.concurrency > 0
        self._free = 0
        self._sent = 0
        self._replicas = [Replica(env, rank, self._closed) for rank in ranks]
        for number, replica in enumerate(self._replicas):
            env.process(replica.run(self, number))
        env.process(self._closed_loop(requests.concurrency) if self._closed else self._arrivals(requests))

    def load_at(self, time: int) -> list[int]:
        """Requests in each replica; exact at any instant, since finishes are events."""
        return self.loads

    def finished(self, number: int, requests: int) -> None:
        """`requests` of replica `number` finished now."""
        self.loads[number] -= requests
        if self._closed:
            if self._free == 0:
                at(self._env, int(self._env.now), _SEND).callbacks.append(self._send_freed)
            self._free += requests

    def _send(self, request: int) -> None:
        now = int(self._env.now)
        number = self._router.choose(self._sent, now, self)
        self._sent += 1
        self.loads[number] += 1
        self._recorder.arrival[request] = now
        self._replicas[number].receive(Sequence(request, self._prompt[request], self._output[request]))

    def _arrivals(self, requests: Requests) -> Process:
        """Sends every request at its arrival."""
        for request, time in enumerate(ticks_array(requests.arrival_s).tolist()):
            if time > self._env.now:
                yield at(self._env, time, _ARRIVAL)
            self._send(request)

    def _closed_loop(self, concurrency: int) -> Process:
        """Sends the first `concurrency` requests; finishes send the rest."""
        for request in range(min(concurrency, len(self._prompt))):
            self._send(request)
        yield at(self._env, int(self._env.now), _PLAN)

    def _send_freed(self, _: Event) -> None:
        """As many requests as finished at this instant, in order of their number."""
        for request in range(self._sent, min(self._sent + self._free, len(self._prompt))):
            self._send(request)
        self._free = 0
