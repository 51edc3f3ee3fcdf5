"""Intervals of a report: means over seeds, differences paired by seed, rates of failure.

All are two-sided and cover the true value with the stated confidence, 95 % unless told otherwise, if their assumption
holds: independent, roughly normal values for the t intervals; independent trials of one probability for Wilson's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval, in the unit of the values.

    Attributes:
        mean: the estimate; NaN where there is no value.
        low, high: ends of the interval; NaN where the values do not give one.
        n: number of independent values (or of trials).
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width, for symmetric intervals."""
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; False where there is none."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Iterable[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean of the values with Student's t interval, mean ± t·s/√n, s with n - 1 (Student 1908).

    One value gives its mean and no interval, none gives NaN.
    """
    x = np.fromiter(values, dtype=np.float64)
    if x.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    t = float(stdtrit(x.size - 1, (1 + confidence) / 2))
    half = t * float(x.std(ddof=1)) / math.sqrt(x.size)
    return Interval(mean, mean - half, mean + half, x.size)


def paired_interval(
    first: Mapping[Any, float], second: Mapping[Any, float], confidence: float = CONFIDENCE
) -> Interval:
    """The mean of second - first over the keys (seeds) that both have, with its t interval.

    Runs of one seed start from the same weights and see the data in the same order; where that makes them alike, the
    interval of the difference is narrower than those of the two means.
    """
    return mean_interval((second[key] - first[key] for key in first if key in second), confidence)


def wilson_interval(count: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The rate count/n with Wilson's score interval (Wilson 1927), which holds at 0 and at n of n too.

    It is (p + z²/2n ± z·√(p(1 - p)/n + z²/4n²))/(1 + z²/n), z the normal quantile, 1.96 at 95 %.

    Raises:
        ValueError: unless 0 <= count <= n.
    """
    if not 0 <= count <= n:
        raise ValueError(f"count={count}: must be between 0 and n={n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    z = float(ndtri((1 + confidence) / 2))
    p, shrink = count / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    # The formula's ends are exactly 0 and 1 there; rounding must not leave them.
    low = 0.0 if count == 0 else centre - half
    high = 1.0 if count == n else centre + half
    return Interval(p, low, high, n)


def rate_difference(count: int, n: int, other: int, n_other: int, confidence: float = CONFIDENCE) -> Interval:
    """other/n_other - count/n with Newcombe's interval from the two Wilson intervals (Newcombe 1998, method 10).

    Raises:
        ValueError: unless each count is between 0 and its n.
    """
    a, b = wilson_interval(count, n, confidence), wilson_interval(other, n_other, confidence)
    difference = b.mean - a.mean
    low = difference - math.hypot(b.mean - b.low, a.high - a.mean)
    return Interval(difference, low, difference + math.hypot(b.high - b.mean, a.mean - a.low), min(n, n_other))
