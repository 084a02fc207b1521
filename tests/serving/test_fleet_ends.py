"""How requests and runs end: chains, giving up, failures, deadlock, Ctrl-C."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from threading import Thread

import numpy as np
import pytest

from sim.metrics.record import NOT_YET, Recorder
from sim.serving.clock import PLAN, Clock, at
from sim.serving.ending import DeadlockError, run_to_end
from sim.serving.failures import PlannedFailures, RandomFailures
from sim.serving.fleet import ReplicaFleet
from sim.serving.kv import KvLayout
from sim.serving.router import LeastRequests, PrefixAware
from tests.serving.engine import stream
from tests.serving.test_fleet import Fleet, chained, impatient

S = 10**12


def test_a_follower_is_sent_its_think_time_after_the_end():
    requests = impatient(chained(stream(80, 40.0)))
    recorder = Fleet(replicas=2).run(requests)
    ends = np.maximum(recorder.finish, recorder.cancelled)
    follows = requests.after >= 0
    think = np.rint(requests.think_s * S).astype(np.int64)
    assert np.array_equal(np.array(recorder.arrival)[follows], (ends[requests.after] + think)[follows])
    assert np.array_equal(np.array(recorder.arrival)[~follows], np.rint(requests.arrival_s * S)[~follows])


def test_one_client_is_a_closed_loop_of_one():
    """Requests that follow each other at once see what a concurrency of 1 sees."""
    loop = stream(30, 1.0, concurrency=1)
    chain = replace(loop, concurrency=0, after=np.arange(-1, 29), think_s=np.zeros(30))
    assert Fleet().run(chain).finish == Fleet().run(loop).finish


def test_who_waits_leaves_at_once_and_who_runs_at_the_end_of_the_step():
    """One slot: the second request waits behind the first; the third follows it into the slot."""
    requests = stream(3, 1.0)
    requests.arrival_s[:] = [0.0, 0.001, 0.002]
    requests.prompt_tokens[:], requests.output_tokens[:] = 100, 50
    deployment = Fleet(max_seqs=1)
    plain = deployment.run(requests)
    impatient_ones = replace(requests, cancel_s=np.array([0.05, 0.01, np.inf]))
    recorder = deployment.run(impatient_ones)
    assert list(recorder.cancelled) == [S * 5 // 100, S * 11 // 1000, NOT_YET]
    assert list(recorder.finish[:2]) == [NOT_YET, NOT_YET]
    assert recorder.first_token[0] == plain.first_token[0]
    assert recorder.first_token[1] == NOT_YET
    assert recorder.wasted[1] == 0 < recorder.wasted[0] < 50
    steps = np.cumsum(recorder.step_ticks())
    assert recorder.admitted[2] == steps[steps >= S * 5 // 100][0], "the slot is free at the next end of a step"


def test_whoever_has_ended_is_not_cancelled():
    requests = stream(40, 20.0)
    ends = (np.array(Fleet().run(requests).finish) - np.rint(requests.arrival_s * S)) / S
    late = Fleet().run(replace(requests, cancel_s=ends + 1e-9))
    assert max(late.cancelled) == NOT_YET
    early = Fleet().run(replace(requests, cancel_s=ends - 1e-9))
    assert early.cancelled[0] != NOT_YET == early.finish[0]


def failing(**options):
    return PlannedFailures(outages_s=[[0, 1.0, 0.5]], **options)


@pytest.mark.parametrize("keep", [True, False])
def test_retried_requests_keep_or_lose_their_tokens(keep):
    requests = stream(40, 20.0, output=200)
    recorder = Fleet(replicas=2, failures=failing(keep_tokens=keep)).run(requests)
    retried = np.array(recorder.retries) > 0
    assert retried.any()
    assert (np.array(recorder.finish) != NOT_YET).all()
    assert (sum(recorder.wasted) == 0) is keep
    first = np.array(recorder.first_token)
    assert (first[retried] < S).any() is np.bool_(keep), "only who keeps its tokens keeps its first token's time"
    assert recorder.outages == [(0, S, 3 * S // 2)]
    blocks = recorder.blocks()
    down = (blocks["replica"] == 0) & (blocks["end"] >= S) & (blocks["start"] < 3 * S // 2)
    assert not down.any(), "the step under way is lost, and nothing runs before the replica is back"


def test_lost_requests_are_those_in_the_replica():
    requests = stream(40, 20.0, output=200)
    recorder = Fleet(replicas=2, failures=failing(most_retries=0)).run(requests)
    lost = np.array(recorder.lost) != NOT_YET
    assert set(np.array(recorder.lost)[lost].tolist()) == {S}
    assert (np.array(recorder.finish)[lost] == NOT_YET).all()
    assert sum(recorder.retries) == 0
    plain = Fleet(replicas=2).run(requests)
    held = (np.array(plain.arrival) < S) & (np.array(plain.finish) >= S) & (np.array(plain.replica) == 0)
    assert np.array_equal(lost, held)


def test_mean_time_between_failures():
    policy = RandomFailures(mean_up_s=3.0, down_s=0.5)
    outages = policy.outages(2, np.uint64(7))
    dies, back = np.array([next(outages) for _ in range(4000)]).T
    up = (dies - np.concatenate(([0], back[:-1]))) / S
    assert np.allclose(back - dies, S // 2)
    assert up.mean() == pytest.approx(3.0, rel=4 / np.sqrt(4000))
    assert up.std() == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RandomFailures(mean_up_s=0.0, down_s=1.0), "mean_up_s"),
        (lambda: RandomFailures(mean_up_s=1.0, down_s=float("inf")), "down_s"),
        (lambda: RandomFailures(mean_up_s=1.0, down_s=1.0, most_retries=-1), "most_retries"),
        (lambda: RandomFailures(mean_up_s=1.0, down_s=1.0, most_retries=0, retry_after_s=1.0), "no effect"),
        (PlannedFailures, "at least one"),
        (lambda: PlannedFailures(outages_s=[[0, 1.0]]), "each row"),
        (lambda: PlannedFailures(outages_s=[[0, 1.0, 2.0], [0, 2.5, 1.0]]), "apart"),
        (lambda: Fleet(failures=PlannedFailures(outages_s=[[1, 1.0, 1.0]])).run(stream(2, 1.0)), "replicas 0 to 0"),
        (lambda: Fleet(routing=PrefixAware()).run(stream(2, 1.0)), "prefix caching"),
    ],
)
def test_bad_settings(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize("whole", [True, False])
def test_deadlock_of_a_request_that_never_fits(whole):
    """Cut to chunks it is admitted, fills the pool and is preempted: that must end too."""
    requests = stream(8, 5.0)
    requests.prompt_tokens[:] = 200
    requests.prompt_tokens[4] = 1700
    needs = (
        r"4 requests left: .*the first of 4 waiting, request 4, needs 107 KV blocks for .* 1700 .*100 of 100 are free"
    )
    with pytest.raises(DeadlockError, match=needs):
        Fleet(kv=KvLayout(100, 16), whole=whole, budget=512).run(requests)


def test_deadlock_without_replicas():
    forever = PlannedFailures(outages_s=[[0, 0.5, float("inf")], [1, 0.6, float("inf")]])
    with pytest.raises(DeadlockError, match="no replica is up nor will be"):
        Fleet(replicas=2, failures=forever).run(stream(60, 40.0))


@dataclass(kw_only=True, slots=True)
class PressesCtrlC(LeastRequests):
    """Interrupts the run while it routes a request."""

    request: int = 50

    def choose(self, arrival, fleet):
        if arrival.number == self.request:
            os.kill(os.getpid(), signal.SIGINT)
        return LeastRequests.choose(self, arrival, fleet)


def interrupted(requests, deployment, recorder):
    env = Clock()
    rank = deployment.rank_maker(requests, recorder, 4096)
    fleet = ReplicaFleet(env, [rank(0), rank(1)], deployment.routing, requests, recorder)
    return run_to_end(env, fleet, recorder)


def is_the_beginning(part, whole, requests):
    """`part` holds what `whole` holds until some instant, and nothing by halves."""
    for name in ("arrival", "first_token", "finish"):
        for known, true in zip(getattr(part, name), getattr(whole, name), strict=True):
            assert known in {true, NOT_YET}
    blocks = part.blocks()
    assert int(blocks["steps"].sum()) == len(part.step_ticks()) == len(part.step_contexts())
    finished = np.array(part.finish) != NOT_YET
    assert 0 < finished.sum() < len(requests)
    assert int(blocks["emitted_tokens"].sum()) >= int(requests.output_tokens[finished].sum())


def test_ctrl_c_leaves_whole_records():
    requests = stream(100, 40.0)
    whole = Fleet(replicas=2).run(requests)
    before = signal.getsignal(signal.SIGINT)
    recorder = Recorder(100, keep_steps=True)
    assert not interrupted(requests, Fleet(routing=PressesCtrlC()), recorder)
    assert signal.getsignal(signal.SIGINT) is before
    assert recorder.arrival[50] == whole.arrival[50], "the event under way is finished first"
    assert recorder.arrival[51] == NOT_YET
    is_the_beginning(recorder, whole, requests)


def test_an_interruption_inside_a_record_is_mended(request):
    if request.config.getoption("--compiled"):
        pytest.skip("a compiled Recorder has no subclasses")
    requests = stream(100, 40.0)

    class InterruptedRecorder(Recorder):
        """KeyboardInterrupt at the worst moment: steps are recorded, their block is not."""

        def block(self, row):
            if len(self.step_ticks()) > 800:
                raise KeyboardInterrupt
            Recorder.block(self, row)

    recorder = InterruptedRecorder(100, keep_steps=True)
    assert not interrupted(requests, Fleet(), recorder)
    assert int(recorder.blocks()["steps"].sum()) == len(recorder.step_ticks()) == len(recorder.step_contexts()) > 0


def test_runs_outside_the_main_thread():
    done = []
    thread = Thread(target=lambda: done.append(Fleet(replicas=2).run(stream(10, 10.0))))
    thread.start()
    thread.join()
    assert min(done[0].finish) > 0


def test_what_a_process_raises_reaches_the_caller():
    def broken(env):
        yield at(env, 5, PLAN)
        raise LookupError("no such thing")

    env = Clock()
    env.process(broken(env))
    with pytest.raises(LookupError, match="no such thing"):
        env.run_out()
    assert env.now == 5
