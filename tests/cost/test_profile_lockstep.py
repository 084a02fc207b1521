"""Ranks in lockstep priced from a layer profile: one rank is the profile's own step, several share and wait."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.cost.host import read_engine
from sim.cost.lockstep import IDLE, RankLoad
from sim.cost.profile import LayerProfile
from sim.cost.profile_lockstep import MoeBlocks, ProfileLockstep
from sim.cost.profile_prices import ProfilePrices
from tests.cost import profile_rows as own

ENGINE = replace(read_engine("vllm_0_19"), layer_host_s=0.0, eager_layer_host_s=0.0)
PROMPT = (1, 256, 256, 256 * 256 + 256 * 257 // 2, 1)


@pytest.fixture(scope="module")
def alone() -> ProfilePrices:
    return ProfilePrices(LayerProfile.from_rows(own.rows(), own.LAYERS), ENGINE, own.LAYERS, 2048, 1 << 20)


def lockstep(alone: ProfilePrices, ranks: int, shared_s: float = 0.0) -> ProfileLockstep:
    return ProfileLockstep(alone, lambda tokens: shared_s * tokens, ranks)


@pytest.mark.parametrize("sequences", [1, 12, 64])
def test_one_rank_that_shares_nothing_takes_the_profiles_step(alone, sequences):
    one, context = lockstep(alone, 1), sequences * 1500
    priced = one.step([RankLoad(sequences)], [context])
    assert priced == pytest.approx(alone.decode(sequences, 0).at(context), rel=3e-4)
    mixed = one.step([RankLoad(sequences, moments=PROMPT)], [context])
    assert mixed == pytest.approx(alone.mixed(0, sequences, context, PROMPT), abs=2)


def test_many_steps_are_single_steps_and_idle_ranks_wait(alone):
    group, loads = lockstep(alone, 3, 1e-6), [RankLoad(5), IDLE, RankLoad(40)]
    context = [np.arange(5) + 4000, np.zeros(5, dtype=np.int64), 60_000 + 40 * np.arange(5)]
    together = group.steps(loads, context)
    assert together.tolist() == [group.step(loads, [int(column[i]) for column in context]) for i in range(5)]
    assert group.step(loads, [4000, 0, 60_000]) == group.step([RankLoad(40)] * 3, [60_000] * 3), (
        "all pad to the fullest"
    )


def test_without_a_graph_the_shared_part_sees_the_tokens_there_are(alone):
    group, prompt = lockstep(alone, 2, 1e-6), RankLoad(0, moments=(1, 1024, 0, 1024 * 1025 // 2, 1))
    one, both = group.step([prompt, IDLE], [0, 0]), group.step([prompt, prompt], [0, 0])
    assert both - one == pytest.approx(1023e-6 * 1e12, abs=2)


def test_blocks_are_linear_between_what_was_measured():
    blocks = MoeBlocks(
        np.array([1.0, 9.0]), ((np.array([2.0, 4.0]), np.array([1.0, 3.0])), (np.array([4.0]), np.array([11.0])))
    )
    found = blocks(np.array([1.0, 1.0, 5.0, 17.0]), np.array([2.0, 3.0, 4.0, 4.0]))
    assert found.tolist() == [1.0, 2.0, 7.0, 19.0]
