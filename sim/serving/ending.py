"""How a run ends: all is served, the user interrupts it, or it is stuck."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from sim.metrics.record import Recorder
from sim.serving.clock import FAILURE, Clock, Event, at, tick
from sim.serving.fleet import ReplicaFleet
from sim.serving.rank import Rank


class DeadlockError(Exception):
    """Nothing can run and nothing will arrive, but requests are left; the message says who waits for what."""


def run_to_end(env: Clock, fleet: ReplicaFleet, recorder: Recorder) -> bool:
    """Run until nothing is left to happen; False where the user interrupted it (Ctrl-C) before.

    Then `recorder` holds all that had happened by some instant, and nothing by halves.

    Raises:
        DeadlockError: requests are left.
    """
    try:
        with _interrupted_between_events(env):
            env.run_out()
    except KeyboardInterrupt:
        recorder.drop_steps_without_block()
        return False
    if fleet.unanswered or any(fleet.loads):
        raise DeadlockError(diagnosis(fleet))
    return True


def diagnosis(fleet: ReplicaFleet) -> str:
    """Who waits, what for, and what there is."""
    stuck = [
        f"replica {number} holds {load} and can run none: {'; '.join(map(_needs, replica.rank.ranks))}"
        for number, (load, replica) in enumerate(zip(fleet.loads, fleet.replicas, strict=True))
        if load
    ]
    if fleet.unanswered:
        stuck.append(f"no replica is up nor will be, for {len(fleet.unanswered)} that wait for one")
    return f"deadlock with {sum(fleet.loads) + len(fleet.unanswered)} requests left: {'; '.join(stuck)}"


def _needs(rank: Rank) -> str:
    pool = rank.pool
    free = pool.kv.blocks - pool.used(rank.batch, rank.partial, -1)
    blocked = [*([rank.partial] if rank.partial is not None else []), *rank.waiting]
    if not blocked:
        return f"nothing waits, {len(rank.batch)} decode, {free} of {pool.kv.blocks} KV blocks are free"
    first = blocked[0]
    return (
        f"the first of {len(blocked)} waiting, request {first.request}, needs "
        f"{pool.kv.blocks_for(first.prefill_tokens)} KV blocks for the {first.prefill_tokens} tokens of its prefill, "
        f"{free} of {pool.kv.blocks} are free"
    )


@contextmanager
def _interrupted_between_events(env: Clock) -> Iterator[None]:
    """Ctrl-C takes effect when the event under way is over; a second one at once."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        event = at(env, tick(env), FAILURE)
        assert event.callbacks is not None
        event.callbacks.append(_raise)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise(_: Event) -> None:
    raise KeyboardInterrupt
