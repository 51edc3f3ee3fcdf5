"""A rate against a number, fitted by a logistic curve with Firth's penalised likelihood.

P(x) = 1/(1 + exp(-(a + b·x))). Where the counts are separated (below some x no run dies, above it every run does), the
usual likelihood has no maximum. With ln L + ½ ln det I, I being Fisher's information, it always has one (Firth 1993;
Heinze and Schemper 2002).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, ndtri

from experiments.statistics import CONFIDENCE, Interval


@dataclass(frozen=True)
class Logistic:
    """A fitted curve.

    Attributes:
        intercept, slope: a and b.
        covariance: (2, 2), of a and b: the inverse of Fisher's information at the fit.
        n: number of trials.
    """

    intercept: float
    slope: float
    covariance: np.ndarray
    n: int

    def at(self, x: float | np.ndarray) -> np.ndarray:
        """The probability at x."""
        return expit(self.intercept + self.slope * np.asarray(x))

    @property
    def half(self) -> Interval:
        """Where the probability is ½, -a/b, with the interval of the delta method.

        NaN where the sign of the slope is not known: then there may be no such place.
        """
        z = float(ndtri((1 + CONFIDENCE) / 2))
        if abs(self.slope) <= z * math.sqrt(self.covariance[1, 1]):
            return Interval(math.nan, math.nan, math.nan, self.n)
        middle = -self.intercept / self.slope
        gradient = -np.array([1.0, middle]) / self.slope  # of -a/b, by a and b
        reach = z * math.sqrt(gradient @ self.covariance @ gradient)
        return Interval(middle, middle - reach, middle + reach, self.n)


def fit(x: Sequence[float], counts: Sequence[int], totals: Sequence[int]) -> Logistic:
    """The curve for counts[i] of totals[i] trials at x[i].

    Raises:
        ValueError: for fewer than two different x with trials; no curve is determined then.
    """
    tried = np.asarray(totals) > 0
    at, k, n = (np.asarray(values, dtype=np.float64)[tried] for values in (x, counts, totals))  # (m,) each
    if len(np.unique(at)) < 2:
        raise ValueError(f"{len(np.unique(at))} values of x have trials: a curve needs two")
    centre, scale = at.mean(), at.std()
    design = np.stack([np.ones_like(at), (at - centre) / scale], axis=1)  # (m, 2)

    def information(beta: np.ndarray) -> np.ndarray:
        p = expit(design @ beta)  # (m,)
        return design.T @ (design * (n * p * (1 - p))[:, None])  # (2, 2)

    def loss(beta: np.ndarray) -> float:
        logit = design @ beta  # (m,)
        likelihood = k @ -np.logaddexp(0, -logit) + (n - k) @ -np.logaddexp(0, logit)
        return -float(likelihood + 0.5 * np.linalg.slogdet(information(beta))[1])

    beta = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}).x
    back = np.array([[1, -centre / scale], [0, 1 / scale]])  # from the scaled x to x
    intercept, slope = back @ beta
    return Logistic(float(intercept), float(slope), back @ np.linalg.inv(information(beta)) @ back.T, int(n.sum()))
