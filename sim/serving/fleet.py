"""The fleet: replicas behind a router, what they hold, and what becomes of every request."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Sequenced

import numpy as np

from sim.draws import Keys, derive, key, uniform
from sim.metrics.record import NOT_YET, Recorder
from sim.request import Requests
from sim.serving.clients import clients_of, patience
from sim.serving.clock import CANCEL, FAILURE, RETURN, Environment, Process, Timetable, at, tick
from sim.serving.failures import Failures, Outage
from sim.serving.replicas import AnyReplica, Unit, replica_of
from sim.serving.router import Arrival, Router
from sim.serving.sequence import Sequence
from sim.serving.ticks import ticks

Spare = Callable[[int], Unit]
"""Makes a fresh rank, or what replicas have instead, for one that comes back."""


class ReplicaFleet:
    """Sends every request through the router, and again where its replica died.

    Attributes:
        loads: requests in each replica.
        replicas: by number.

    Args:
        env: the clock.
        ranks: one per replica, or a group or pipeline of them.
        router: chooses among the replicas that are up.
        requests: the stream.
        recorder: that of the ranks.
        seed: of the run.
        failures: when replicas die; None for never.
        spare: with `failures`.

    Raises:
        ValueError: the router reads prefixes where none are cached, or a planned failure names no replica.
    """

    def __init__(
        self,
        env: Environment,
        ranks: Sequenced[Unit],
        router: Router,
        requests: Requests,
        recorder: Recorder,
        *,
        seed: int = 0,
        failures: Failures | None = None,
        spare: Spare | None = None,
    ) -> None:
        router.check([rank for unit in self._entrances(ranks) for rank in unit.ranks])
        self.loads = [0] * len(ranks)
        self._env = env
        self._recorder = recorder
        self._router = router
        self._key = key(seed, "router")
        self._prompt = np.ascontiguousarray(requests.prompt_tokens).data
        self._output = np.ascontiguousarray(requests.output_tokens).data
        self._priority: list[int] | None = requests.priority.tolist() if requests.priority is not None else None
        self._routed = 0
        self._left = len(requests)
        self._returns = Timetable(env, RETURN, self.send)
        self._clients = clients_of(env, requests, self, self._returns)
        self._patience = patience(requests)
        self._cancels = Timetable(env, CANCEL, self._cancel)
        self._places: dict[int, tuple[int, Sequence]] = {}
        self._stranded: list[int] = []
        self._up: list[int] | None = None
        self._emitted: dict[int, int] = {}
        self._watched = self._clients.wait or self._patience is not None or failures is not None
        self.replicas: list[AnyReplica] = [self._replica(number, rank) for number, rank in enumerate(ranks)]
        for replica in self.replicas:
            env.process(replica.run(self))
        env.process(self._clients.run())
        if failures is not None:
            assert spare is not None, "a replica that comes back needs a rank"
            failures.check(len(ranks))
            self._up = list(range(len(ranks)))
            for number in self._up:
                env.process(self._fail(number, failures, spare, key(seed, "failures")))

    @property
    def unanswered(self) -> list[int]:
        """Requests that were sent and wait for a replica to come up."""
        return self._stranded

    def load_at(self, time: int) -> list[int]:
        """Requests in each replica that is up; exact at any instant, since finishes are events."""
        return self.loads if self._up is None else [self.loads[number] for number in self._up]

    def tokens_at(self, time: int) -> list[int]:
        """Prompt tokens and tokens out so far of the requests in each replica that is up."""
        return [replica.tokens_at(time) for replica in self._candidates()]

    def prefix_hits_at(self, time: int, sequence: Sequence) -> list[int]:
        """Tokens of `sequence` whose KV each replica that is up has."""
        return [replica.prefix_hit_at(time, sequence) for replica in self._candidates()]

    def draws(self, arrival: Arrival, count: int) -> list[float]:
        """Uniform numbers in [0, 1) of this arrival alone."""
        own = derive(derive(self._key, arrival.sequence.request), arrival.attempt)
        numbers: list[float] = uniform(derive(own, np.arange(count))).tolist()
        return numbers

    def send(self, request: int) -> None:
        """`request` arrives now: for the first time, or again."""
        self._send(request, tick(self._env))

    def send_freed(self, request: int) -> None:
        """`request` arrives now, and the steps that end now have ended."""
        self._send(request, tick(self._env) + 1)

    def finished(self, number: int, requests: list[int]) -> None:
        """`requests` of replica `number` finished now."""
        self.loads[number] -= len(requests)
        if self._router.counts_tokens:
            self.replicas[number].tokens -= sum(self._prompt[r] + self._output[r] for r in requests)
        if self._watched:
            self._end(requests)

    def left(self, number: int, sequences: list[Sequence], emitted: list[int]) -> None:
        """`sequences` of replica `number`, whose clients gave up, leave it now, with `emitted` tokens out of each."""
        self.loads[number] -= len(sequences)
        for sequence, tokens in zip(sequences, emitted, strict=True):
            self._recorder.wasted[sequence.request] += tokens
            self.replicas[number].tokens -= sequence.prompt_tokens + tokens

    def _entrances(self, ranks: Sequenced[Unit]) -> Sequenced[Unit]:
        """Those that a new request may go to."""
        return ranks

    def _replica(self, number: int, rank: Unit) -> AnyReplica:
        settle, counts_tokens = self._clients.answer_at_once, self._router.counts_tokens
        return replica_of(self._env, number, rank, self._recorder, settle=settle, counts_tokens=counts_tokens)

    def _candidates(self) -> list[AnyReplica]:
        return self.replicas if self._up is None else [self.replicas[number] for number in self._up]

    def _send(self, request: int, time: int) -> None:
        recorder = self._recorder
        sequence = Sequence(request, self._prompt[request], self._output[request])
        if self._priority is not None:
            sequence.priority = self._priority[request]
        if recorder.arrival[request] == NOT_YET:
            now = tick(self._env)
            recorder.arrival[request] = now
            if self._patience is not None and self._patience[request]:
                self._cancels.add(now + self._patience[request], request)
        elif recorder.cancelled[request] != NOT_YET:
            return
        else:
            sequence.emitted = self._emitted.pop(request, 0)
        self._route(sequence, time)

    def _route(self, sequence: Sequence, time: int) -> None:
        request, up = sequence.request, self._up
        if up is not None and not up:
            self._emitted[request] = sequence.emitted
            self._stranded.append(request)
            return
        chosen = self._router.choose(Arrival(self._routed, sequence, self._recorder.retries[request], time), self)
        number = chosen if up is None else up[chosen]
        self._routed += 1
        self.loads[number] += 1
        if self._watched:
            self._places[request] = (number, sequence)
        self.replicas[number].receive(sequence)

    def _end(self, requests: list[int]) -> None:
        """`requests` ended now, one way or another."""
        self._left -= len(requests)
        for request in requests:
            self._places.pop(request, None)
        self._clients.ended(requests, tick(self._env))

    def _cancel(self, request: int) -> None:
        """The client of `request` gives up now, unless it has ended."""
        recorder = self._recorder
        if recorder.finish[request] != NOT_YET or recorder.lost[request] != NOT_YET:
            return
        recorder.cancelled[request] = tick(self._env)
        if request in self._places:
            number, sequence = self._places[request]
            recorder.replica[request] = number
            if self.replicas[number].withdraw(sequence):
                self.left(number, [sequence], [sequence.emitted])
        else:
            recorder.wasted[request] += self._emitted.pop(request, 0)
            if request in self._stranded:
                self._stranded.remove(request)
        self._end([request])

    def _fail(self, number: int, failures: Failures, spare: Spare, run: Keys) -> Process:
        """The process of replica `number`'s outages, while there is anything left to serve."""
        for outage in failures.outages(number, run):
            yield at(self._env, outage.dies, FAILURE)
            if not self._left:
                return
            self._die(number, failures, spare(number), outage)
            if outage.back is None:
                return
            yield at(self._env, outage.back, FAILURE)
            self._come_back(number)

    def _die(self, number: int, failures: Failures, successor: Unit, outage: Outage) -> None:
        assert self._up is not None
        self._up.remove(number)
        self._recorder.outages.append((number, outage.dies, NOT_YET if outage.back is None else outage.back))
        for sequence in self.replicas[number].die(successor):
            self._give_back(sequence, failures)
        self.loads[number] = 0

    def _give_back(self, sequence: Sequence, failures: Failures) -> None:
        """`sequence` was in a replica that dies now: it is sent again, or lost."""
        recorder, request, now = self._recorder, sequence.request, tick(self._env)
        if recorder.cancelled[request] != NOT_YET:
            recorder.wasted[request] += sequence.emitted
            return
        del self._places[request]
        if recorder.retries[request] < failures.most_retries:
            recorder.retries[request] += 1
            if failures.keep_tokens:
                self._emitted[request] = sequence.emitted
            else:
                recorder.wasted[request] += sequence.emitted
            self._returns.add(now + ticks(failures.retry_after_s), request)
            return
        recorder.lost[request] = now
        recorder.wasted[request] += sequence.emitted
        self._end([request])

    def _come_back(self, number: int) -> None:
        assert self._up is not None
        self._up = sorted([*self._up, number])
        stranded, self._stranded = self._stranded, []
        for request in stranded:
            self._returns.add(tick(self._env), request)
