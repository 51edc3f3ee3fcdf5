"""Firth's logistic regression against closed forms and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from experiments.logistic import fit


@pytest.mark.parametrize("counts", [(3, 8), (0, 10), (10, 0), (0, 0)])
def test_with_two_values_of_x_the_penalty_adds_half_a_trial_of_each_kind(counts: tuple[int, int]):
    # The model is saturated, and Jeffreys' prior of two independent rates is Beta(½, ½) each: p = (k + ½)/(n + 1).
    curve = fit([1.0, 3.0], counts, [10, 10])
    assert curve.at(np.array([1.0, 3.0])) == pytest.approx([(k + 0.5) / 11 for k in counts], abs=1e-6)


def test_with_many_trials_it_is_the_usual_regression():
    x, totals = np.linspace(-2, 3, 6), np.full(6, 20_000)
    counts = np.round(totals / (1 + np.exp(-(0.4 + 1.3 * x)))).astype(int)
    both = np.concatenate([x, x])[:, None]
    usual = LogisticRegression(C=math.inf, tol=1e-10).fit(both, [1] * 6 + [0] * 6, [*counts, *(totals - counts)])
    curve = fit(list(x), list(counts), list(totals))
    assert curve.intercept == pytest.approx(float(usual.intercept_[0]), abs=1e-3)
    assert curve.slope == pytest.approx(float(usual.coef_[0, 0]), abs=1e-3)


def test_separated_counts_have_a_finite_fit_between_the_values_that_separate_them():
    curve = fit([1.0, 2.0, 3.0, 4.0], [0, 0, 20, 20], [20, 20, 20, 20])
    assert math.isfinite(curve.slope)
    assert curve.half.mean == pytest.approx(2.5, abs=1e-4)  # by symmetry
    assert curve.half.low < 2.5 < curve.half.high


def test_the_interval_of_the_middle_covers_it_as_often_as_it_says():
    rng, x = np.random.default_rng(0), [0.0, 1.0, 2.0, 3.0, 4.0]
    rates = 1 / (1 + np.exp(-(-3 + 1.5 * np.array(x))))  # ½ at 2
    middles = [fit(x, list(rng.binomial(30, rates)), [30] * 5).half for _ in range(100)]
    assert 0.9 <= np.mean([m.low <= 2 <= m.high for m in middles]) <= 0.99


def test_without_a_trend_there_is_no_middle():
    assert math.isnan(fit([1.0, 2.0, 3.0], [5, 4, 5], [10, 10, 10]).half.mean)


def test_one_value_of_x_determines_no_curve():
    with pytest.raises(ValueError, match="1 values of x have trials"):
        fit([1.0, 1.0, 2.0], [1, 2, 0], [5, 5, 0])
