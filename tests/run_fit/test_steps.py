"""Least squares over constants whose effects are simulated."""

from __future__ import annotations

import numpy as np
import pytest

from sim.run_fit.steps import least_squares, standard_errors

WIDE = np.array([[-10.0, -10.0], [10.0, 10.0]])


def line(at):
    """Four points of a straight line, in units of their errors of 0.1."""
    x = np.arange(4.0)
    return (at[0] + at[1] * x - (1.0 + 2.0 * x)) / 0.1


def test_it_finds_the_line_and_its_textbook_errors():
    found = least_squares(line, np.zeros(2), [0, 1], WIDE)
    assert found.at == pytest.approx([1.0, 2.0])
    # Var(intercept) = s^2 sum x^2 / (n sum x^2 - (sum x)^2), Var(slope) = s^2 n / (the same)
    assert found.errors == pytest.approx([0.1 * np.sqrt(14 / 20), 0.1 * np.sqrt(4 / 20)])


def test_a_held_constant_stays_and_bounds_are_kept():
    found = least_squares(line, np.zeros(2), [1], WIDE)
    assert found.at[0] == 0.0
    assert found.at[1] > 2.0
    assert least_squares(line, np.zeros(2), [0, 1], np.array([[0.0, 0.0], [0.5, 10.0]])).at[0] == 0.5


def test_errors_grow_with_what_is_left():
    def bent(at):
        return line(at) + np.array([9.0, -9.0, -9.0, 9.0])

    assert (least_squares(bent, np.zeros(2), [0, 1], WIDE).errors > 5 * np.array([0.08, 0.04])).all()


def test_what_no_residual_tells_apart_has_no_error():
    assert np.isinf(standard_errors(np.array([[1.0, 2.0], [2.0, 4.0]]), np.zeros(2))).all()
    assert np.isinf(standard_errors(np.ones((1, 2)), np.zeros(1))).all()
