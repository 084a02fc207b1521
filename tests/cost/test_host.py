"""The host side: graph sizes, launch-bound passes, presets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import read_engine


@pytest.fixture
def engine():
    return read_engine("vllm_0_10")


def test_graph_sizes_are_vllms(engine):
    sizes = [1, 2, 4, *range(8, 257, 8), *range(272, 513, 16)]
    tokens = np.arange(1, 513)
    expected = [min(size for size in sizes if size >= t) for t in tokens.tolist()]
    assert engine.padded_tokens(tokens).tolist() == expected
    assert engine.padded_tokens(513) == 513
    assert replace(engine, graph_tokens=0).padded_tokens(3) == 3


def test_padding_never_passes_the_largest_graph(engine):
    small = replace(engine, graph_tokens=60)
    assert small.padded_tokens(np.array([56, 57, 60])).tolist() == [56, 57, 60]


def test_launches_cost_nothing_in_a_full_graph_and_most_without(engine):
    full = engine.launch_s(32, 16, 1, full_graph=True)
    piecewise = engine.launch_s(32, 16, 0, full_graph=True)
    eager = engine.launch_s(32, 513, 1, full_graph=True)
    assert full == 0.0
    assert piecewise == 32 * engine.layer_host_s
    assert eager == 32 * engine.eager_layer_host_s > piecewise


def test_bounds_name_the_field(engine):
    with pytest.raises(ValueError, match=r"engine\.step_host_s must be >= 0 and finite, got -1"):
        replace(engine, step_host_s=-1.0)
    with pytest.raises(ValueError, match=r"engine\.max_block_steps must be >= 1, got 0"):
        replace(engine, max_block_steps=0)
    with pytest.raises(ValueError, match=r"engine must be one of .*vllm_0_10"):
        read_engine("vllm_9")
