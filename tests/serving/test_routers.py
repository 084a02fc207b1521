"""Routers: what each chooses, and how well they spread load."""

from __future__ import annotations

import numpy as np
import pytest

from sim.draws import derive, key, uniform
from sim.serving.router import Arrival, LeastRequests, LeastTokens, PowerOfTwo, PrefixAware, Random, RoundRobin
from sim.serving.sequence import Sequence
from tests.serving.reference_rank import Seq


class PlainFleet:
    """Answers a router's questions from the ranks of the reference, one by one."""

    def __init__(self, seed, requests, ranks, loads):
        self.seed, self.requests, self.ranks, self.loads = seed, requests, ranks, loads

    def choose(self, router, number, request, attempt):
        prompt, output = (int(column[request]) for column in (self.requests.prompt_tokens, self.requests.output_tokens))
        return router.choose(Arrival(number, Sequence(request, prompt, output), attempt, -1), self)

    def load_at(self, time):
        return self.loads

    def tokens_at(self, time):
        return [sum(s.prompt + s.emitted for s in rank.waiting + rank.running if not s.gone) for rank in self.ranks]

    def prefix_hits_at(self, time, sequence):
        seq = Seq(sequence.request, sequence.prompt_tokens, sequence.output_tokens, target=sequence.prompt_tokens)
        return [rank.hits(seq) * rank.kv.block_tokens for rank in self.ranks]

    def draws(self, arrival, count):
        own = derive(derive(key(self.seed, "router"), arrival.sequence.request), arrival.attempt)
        return [float(uniform(derive(own, i))) for i in range(count)]


class Told(PlainFleet):
    """Says what it was told to say."""

    def __init__(self, loads, tokens=(), hits=(), seed=0):
        super().__init__(seed, None, (), list(loads))
        self.tokens, self.hits = list(tokens), list(hits)

    def tokens_at(self, time):
        return self.tokens

    def prefix_hits_at(self, time, sequence):
        return self.hits


def arrival(request=0, prompt=100, attempt=0):
    return Arrival(request, Sequence(request, prompt, 10), attempt, 0)


def choices(router, fleet, requests):
    return np.array([router.choose(arrival(request), fleet) for request in range(requests)])


def test_deterministic_routers():
    assert choices(RoundRobin(), Told([9, 0, 0]), 5).tolist() == [0, 1, 2, 0, 1]
    assert LeastRequests().choose(arrival(), Told([3, 1, 1])) == 1
    assert LeastTokens().choose(arrival(), Told([0, 9, 9], tokens=[500, 20, 20])) == 1


def test_random_is_uniform_and_addressed():
    fleet = Told([0] * 8)
    first = choices(Random(), fleet, 4000)
    assert np.array_equal(first, choices(Random(), fleet, 4000))
    counts = np.bincount(first, minlength=8)
    assert np.abs(counts - 500).max() < 4 * np.sqrt(500 * 7 / 8)
    assert not np.array_equal(first, choices(Random(), Told([0] * 8, seed=1), 4000))
    assert len({Random().choose(arrival(7, attempt=k), fleet) for k in range(40)}) > 3


def test_power_of_two_takes_the_emptier_of_two_different_replicas():
    loads = np.arange(6)
    chosen = choices(PowerOfTwo(), Told(loads), 6000)
    # of the 15 pairs of 6 replicas, replica i is the emptier in 5 - i
    assert np.allclose(np.bincount(chosen, minlength=6) / 6000, (5 - loads) / 15, atol=0.03)
    assert PowerOfTwo().choose(arrival(), Told([7])) == 0


def test_power_of_two_keeps_queues_shorter_than_random():
    """Balls into bins: the fullest of n bins holds about ln n / ln ln n at random, ln ln n with two choices."""
    fullest = {}
    for router in (Random(), PowerOfTwo()):
        fleet = Told([0] * 200)
        for request in range(200):
            fleet.loads[router.choose(arrival(request), fleet)] += 1
        fullest[type(router)] = max(fleet.loads)
    assert fullest[PowerOfTwo] <= 3 < fullest[Random]


def test_prefix_aware():
    router = PrefixAware(threshold=0.3, most_ahead=10, most_ratio=2.0)
    assert router.choose(arrival(), Told([5, 5, 6], hits=[0, 32, 64])) == 2
    assert router.choose(arrival(), Told([5, 3, 6], hits=[64, 64, 0])) == 1, "equal hits: the emptier"
    assert router.choose(arrival(), Told([5, 4, 6], hits=[16, 16, 30])) == 1, "little cached: the emptiest"
    assert router.choose(arrival(), Told([5, 0, 11], hits=[0, 0, 96])) == 1, "out of balance: the emptiest"
    assert router.choose(arrival(), Told([10, 10, 21], hits=[0, 0, 96])) == 0
    assert router.choose(arrival(), Told([11, 11, 22], hits=[0, 0, 96])) == 2, "not more than twice as many"


@pytest.mark.parametrize("bad", [{"threshold": 1.2}, {"most_ahead": -1}, {"most_ratio": 0.5}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        PrefixAware(**bad)
