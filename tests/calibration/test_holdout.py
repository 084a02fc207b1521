"""Held out means held out: whole groups, always the same, never seen by the fit that predicts them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.calibration.holdout import every_fifth, every_fifth_of_grid, fold_of, held_out, on_edge

KEYS = [(n, k) for n in range(1000, 1030) for k in (1, 2)] * 3


@given(st.permutations(KEYS))
def test_folds_follow_the_group_not_the_order_of_the_rows(keys: list[tuple[int, int]]) -> None:
    found = dict(zip(KEYS, fold_of(KEYS), strict=True))
    assert [found[key] for key in keys] == fold_of(keys).tolist()


def test_a_third_of_the_groups_is_held_out_each_time() -> None:
    folds = dict(zip(KEYS, fold_of(KEYS), strict=True))
    assert np.bincount(list(folds.values())).tolist() == [20, 20, 20]


def test_numbers_of_any_type_hash_alike() -> None:
    assert (
        fold_of([(np.int64(1024), 4096.0), (1, 2), (3, 4)]).tolist() == fold_of([(1024, 4096), (1, 2), (3, 4)]).tolist()
    )


def test_no_row_is_predicted_by_a_fit_that_saw_its_group() -> None:
    folds = fold_of(KEYS)
    groups = np.array([hash(key) for key in KEYS])

    def fit_without(rows: np.ndarray) -> Callable[[], np.ndarray]:
        seen = set(groups[rows].tolist())
        return lambda: np.array([float(group in seen) for group in groups])

    assert held_out(folds, fit_without).tolist() == [0.0] * len(KEYS)


def test_every_fifth_size_never_takes_an_edge() -> None:
    sizes = np.repeat([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048], 4)
    held = every_fifth(sizes)
    assert sorted(set(sizes[held].tolist())) == [16, 512]
    assert not held[sizes == 1].any()
    assert not held[sizes == 2048].any()


def test_edges_of_a_grid_are_its_ends_along_either_axis() -> None:
    outer, inner = np.repeat([1, 2, 4], 3), np.tile([10, 20, 30], 3)
    assert on_edge(np.zeros(9), outer, inner).reshape(3, 3).tolist() == [[True] * 3, [True, False, True], [True] * 3]
    held = every_fifth_of_grid(outer, inner)
    assert held.sum() == 2
