"""Intervals against scipy, hand-computed values and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import mean_interval, paired_interval, rate_difference, wilson_interval


def test_mean_interval_by_hand():
    # mean 2, s = 1, t(0.975, 2) = 4.302653, so ± 4.302653/sqrt(3) = 2.484138
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.n) == (2.0, 3)
    assert interval.half == pytest.approx(2.484138, abs=1e-6)
    assert (interval.low, interval.high) == (pytest.approx(2 - interval.half), pytest.approx(2 + interval.half))


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_mean_interval_is_scipys(n: int, confidence: float):
    x = np.random.default_rng(n).normal(5, 3, n)
    low, high = stats.t.interval(confidence, n - 1, x.mean(), stats.sem(x))
    interval = mean_interval(x, confidence)
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval_and_none_has_no_mean():
    one, none = mean_interval([3.5]), mean_interval([])
    assert (one.mean, one.n) == (3.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert not one.excludes_zero
    assert none.n == 0
    assert math.isnan(none.mean)


def test_mean_interval_covers_the_mean_as_often_as_it_says():
    samples = np.random.default_rng(1).normal(2.0, 1.0, (4000, 4))
    hits = sum(i.low <= 2.0 <= i.high for i in map(mean_interval, samples))
    assert abs(hits / 4000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_paired_interval_uses_common_keys_and_is_scipys():
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 5, 8), rng.normal(1, 5, 8)
    a = dict(enumerate(first)) | {100: 9.0}
    b = dict(enumerate(second)) | {200: -9.0}
    interval = paired_interval(a, b)
    reference = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert interval.n == 8
    assert (interval.low, interval.high) == (pytest.approx(reference.low), pytest.approx(reference.high))


def test_paired_interval_is_narrow_where_seeds_go_together():
    seeds = np.random.default_rng(3).normal(0, 10, 5)
    interval = paired_interval(dict(enumerate(seeds)), {i: s + 1 + 0.01 * i for i, s in enumerate(seeds)})
    assert interval.mean == pytest.approx(1.02)
    assert interval.excludes_zero
    assert interval.half < 0.03


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 20), (10, 10), (1, 2), (40, 100)])
def test_wilson_interval_is_scipys(count: int, n: int):
    reference = stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
    interval = wilson_interval(count, n)
    assert interval.mean == count / n
    assert (interval.low, interval.high) == (pytest.approx(reference.low), pytest.approx(reference.high))


def test_wilson_interval_by_hand():
    # p = 0, n = 10: high = z²/n / (1 + z²/n) = 0.384146/1.384146 = 0.277533
    assert wilson_interval(0, 10).high == pytest.approx(0.277533, abs=1e-6)
    assert wilson_interval(0, 10).low == 0.0
    assert wilson_interval(7, 7).high == 1.0


def test_wilson_interval_of_nothing_and_of_nonsense():
    interval = wilson_interval(0, 0)
    assert math.isnan(interval.mean)
    assert (interval.low, interval.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="count=3"):
        wilson_interval(3, 2)


def test_wilson_interval_covers_on_average():
    n, p = 20, 0.15
    weights = stats.binom.pmf(np.arange(n + 1), n, p)
    ends = [wilson_interval(k, n) for k in range(n + 1)]
    covered = sum(w for w, i in zip(weights, ends, strict=True) if i.low <= p <= i.high)
    assert 0.92 < covered < 0.99


def test_rate_difference_is_newcombes_method_10():
    # Newcombe 1998, Statistics in Medicine 17, table II: 56/70 - 48/80 and 9/10 - 3/10, 5/56 - 0/29.
    for counts, ends in (((48, 80, 56, 70), (0.0524, 0.3339)), ((3, 10, 9, 10), (0.1705, 0.8090))):
        found = rate_difference(*counts)
        assert (found.low, found.high) == pytest.approx(ends, abs=5e-5)
    none = rate_difference(0, 29, 5, 56)
    assert (none.low, none.high) == pytest.approx((-0.0381, 0.1926), abs=5e-5)
