"""The fit finds known constants, says how sure it is, and is not led astray."""

from __future__ import annotations

import numpy as np
import pytest

from sim.calibration.checks import frame
from sim.calibration.fit import Constant, relative_error, solve, standard_errors
from sim.calibration.fit_allreduce import fit_allreduce
from sim.calibration.fit_family import FamilyFit, fit_family
from sim.calibration.forms_attention import DecodeForm
from sim.calibration.forms_gemm import DenseForm
from sim.calibration.pooled import predicted_from
from tests.calibration.synthetic import COMMON, DECODE, DENSE, GPU, decode_rows, dense_rows

LINE = (Constant("fixed", 1.0, 0.0, 10.0), Constant("slope", 1.0, 0.0, 10.0))
X = np.linspace(1.0, 50.0, 200)


def line(values: np.ndarray) -> np.ndarray:
    return values[0] + values[1] * X


def fitted(form: DenseForm | DecodeForm, rows: object) -> FamilyFit:
    judged = form.judged(rows, GPU)
    assert judged is not None
    return fit_family(form, judged, "made up")


def test_outliers_do_not_carry_the_fit() -> None:
    measured = line(np.array([2.0, 0.5]))
    spoiled = measured.copy()
    spoiled[::20] *= 6.0
    assert solve(line, LINE, spoiled) == pytest.approx([2.0, 0.5], rel=0.03)


def test_values_stay_inside_their_bounds() -> None:
    tight = (Constant("fixed", 0.5, 0.0, 1.0), LINE[1])
    values = solve(line, tight, line(np.array([2.0, 0.5])))
    assert values[0] == pytest.approx(1.0, abs=1e-3)


def test_standard_errors_are_the_spread_over_repetitions() -> None:
    truth, groups = np.array([2.0, 0.5]), np.arange(200) // 4
    rng = np.random.default_rng(0)
    found, said = [], []
    for _ in range(40):
        shared = np.repeat(rng.normal(0.0, 0.03, 50), 4)  # rows of a group err together
        measured = line(truth) * np.exp(shared)
        values = solve(line, LINE, measured, starts=1)
        found.append(values)
        said.append(standard_errors(line, LINE, values, measured, groups))
    assert np.mean(said, axis=0) == pytest.approx(np.std(found, axis=0), rel=0.35)


def test_a_value_on_its_bound_has_no_standard_error() -> None:
    tight = (Constant("fixed", 0.5, 0.0, 1.0), LINE[1])
    measured = line(np.array([2.0, 0.5]))
    errors = standard_errors(line, tight, solve(line, tight, measured), measured, np.arange(200))
    assert np.isnan(errors[0])
    assert errors[1] > 0


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="2 constants need at least 6 rows, got 5"):
        solve(line, LINE, np.ones(5))


def test_dense_constants_are_found_again() -> None:
    fit = fitted(DenseForm(), dense_rows())
    assert fit.efficiency.error == pytest.approx(0.016, abs=0.006)  # mean of |N(0, 2 %)|
    assert fit.efficiency.fit.in_sample_error <= fit.efficiency.error
    for name in ("memory_efficiency", "compute_efficiency", "fixed_s", "chain_s"):
        error = fit.efficiency.fit.standard_errors[name]
        assert abs(getattr(fit.efficiency, name) - getattr(DENSE, name)) < 5 * error, name


def test_decode_price_is_found_again_in_and_above_the_l2() -> None:
    fit = fitted(DecodeForm(), decode_rows())
    assert fit.judged.in_l2.any()
    assert not fit.judged.in_l2.all()
    truth = fit.form.price(DECODE, fit.judged)
    found = fit.form.price(fit.efficiency, fit.judged)
    for rows in (fit.judged.in_l2, ~fit.judged.in_l2):
        assert relative_error(found[rows], truth[rows]) < 0.015


def test_a_flushed_l2_holds_nothing() -> None:
    judged = DecodeForm().judged(decode_rows().assign(l2_flushed=True), GPU)
    assert judged is not None
    assert not judged.in_l2.any()


def test_rows_that_beat_the_memory_are_left_out_and_counted() -> None:
    rows = dense_rows()
    warm = (rows["m"] == 1).to_numpy(bool)
    bytes_s = 2 * (rows["n"] * rows["k"]).to_numpy(float) / GPU.memory_bandwidth_bytes_per_s
    rows.loc[warm, "latency_s"] = 0.5 * bytes_s[warm]
    fit = fitted(DenseForm(), rows)
    assert sum(fit.set_aside.values()) == warm.sum()
    assert fit.efficiency.error < 0.03


def test_two_shapes_fit_the_roofline_alone_and_keep_the_kin() -> None:
    judged = DenseForm().judged(dense_rows(shapes=2), GPU)
    assert judged is not None
    with pytest.raises(ValueError, match=r"2 shapes and .* rows are too few"):
        fit_family(DenseForm(), judged, "made up")
    fit = fit_family(DenseForm(), judged, "made up", base=DENSE)
    assert fit.efficiency.chain_s == DENSE.chain_s
    assert "sizes held out" in fit.efficiency.source
    assert fit.error() < 0.03


def test_a_gpu_with_the_same_constants_predicts_another_one() -> None:
    fit = fitted(DenseForm(), dense_rows())
    assert predicted_from(fit, DENSE) == pytest.approx(0.016, abs=0.004)


def test_all_reduce_is_a_line_per_gpu_count() -> None:
    message = np.tile(2 ** np.arange(8, 30), 2)
    gpus = np.repeat([2, 8], 22)
    bus = 0.7 * 450e9
    seconds = 4e-6 * np.log2(gpus) + 2 * (gpus - 1) / gpus * message / bus
    rows = frame(44, {**COMMON, "op": "all_reduce", "gpus": gpus, "message_bytes": message, "latency_s": seconds})
    found = fit_allreduce(rows, GPU, "made up")
    assert found is not None
    assert found.latency_s == pytest.approx({2: 4e-6, 8: 12e-6}, rel=1e-3)
    assert found.link_efficiency == pytest.approx({2: 0.7, 8: 0.7}, rel=1e-3)
    assert found.error is not None
    assert found.error < 1e-3
