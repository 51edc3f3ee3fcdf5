"""Gaussian mixtures with full covariances, fitted by expectation maximization: the ex-post densities of latents.

It gives the numbers of scikit-learn's GaussianMixture from the same start (tests/test_density.py). That one is not
used, because its last digits depend on the number of threads of libraries that torch does not control, and EM enlarges
such differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 100  # of EM, at most
TOLERANCE = 1e-3  # nats per point: a smaller gain ends EM, as in scikit-learn


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of K Gaussians in k dimensions, float64.

    Attributes:
        weights: (K,), of sum 1.
        means: (K, k).
        covariances: (K, k, k); singular ones can be sampled too.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def sample(self, n: int, gen: torch.Generator) -> Tensor:
        """(n, k), float64."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=gen)  # (n,)
        eps = torch.randn(n, self.means.shape[1], generator=gen, dtype=torch.float64)  # (n, k)
        values, vectors = torch.linalg.eigh(self.covariances)  # (K, k), (K, k, k): covariance = V·diag(values)·Vᵀ
        roots = vectors * values.clamp(min=0).sqrt()[:, None]  # (K, k, k)
        z = self.means[component]  # (n, k)
        for j, root in enumerate(roots):
            z[component == j] += eps[component == j] @ root.T
        return z


def gaussian(x: Tensor) -> GaussianMixture:
    """The Gaussian of most likelihood, as a mixture of one: points (n, k) float64, n >= 1."""
    mean = x.mean(dim=0)  # (k,)
    centred = x - mean
    return GaussianMixture(x.new_ones(1), mean[None], (centred.T @ centred / len(x))[None])


def mixture(x: Tensor, n_components: int, floor: float, gen: torch.Generator) -> GaussianMixture:
    """A mixture fitted by EM (Dempster et al. 1977), from the nearest of as many points, drawn as k-means++ does.

    Args:
        x: points, (n, k) float64, n >= n_components.
        floor: added to the variance of each dimension of each component, > 0.
        gen: draws the points that EM starts from.
    """
    centres = _spread_points(x, n_components, gen)  # (K, k)
    nearest = torch.cdist(x, centres).argmin(dim=1)  # (n,)
    shares = torch.nn.functional.one_hot(nearest, n_components).double()  # (n, K), of each point in each component
    return expectation_maximization(x, shares, floor)


def expectation_maximization(x: Tensor, shares: Tensor, floor: float) -> GaussianMixture:
    """The mixture that EM converges to.

    Args:
        x: points, (n, k) float64.
        shares: of each point in each component, (n, K) float64, rows of sum 1.
        floor: added to the variance of each dimension of each component, > 0.
    """
    before = -math.inf
    for _ in range(STEPS):
        found = _maximized(x, shares, floor)
        joint = log_joint(found, x)  # (n, K)
        log_likelihood = joint.logsumexp(dim=1)  # (n,)
        shares = (joint - log_likelihood[:, None]).exp()
        after = log_likelihood.mean().item()
        if abs(after - before) < TOLERANCE:
            break
        before = after
    return _maximized(x, shares, floor)


def log_joint(fitted: GaussianMixture, x: Tensor) -> Tensor:
    """ln of weight_j·N(x_i; mean_j, covariance_j), (n, K) float64, for points (n, k); no covariance may be singular."""
    columns = []
    for weight, mean, covariance in zip(fitted.weights, fitted.means, fitted.covariances, strict=True):
        root = torch.linalg.cholesky(covariance)  # (k, k)
        white = torch.linalg.solve_triangular(root, (x - mean).T, upper=False)  # (k, n)
        scale = root.diagonal().log().sum() + 0.5 * len(mean) * math.log(2 * math.pi)
        columns.append(weight.log() - scale - 0.5 * white.square().sum(dim=0))
    return torch.stack(columns, dim=1)


def _maximized(x: Tensor, shares: Tensor, floor: float) -> GaussianMixture:
    """The mixture of most likelihood for given shares of the points in the components, (n, K)."""
    sizes = shares.sum(dim=0) + 10 * torch.finfo(x.dtype).eps  # (K,); a component may have lost all points
    means = shares.T @ x / sizes[:, None]  # (K, k)
    covariances = x.new_empty(len(sizes), x.shape[1], x.shape[1])
    for j, mean in enumerate(means):
        centred = x - mean  # (n, k)
        covariances[j] = (shares[:, j, None] * centred).T @ centred / sizes[j]
    covariances.diagonal(dim1=1, dim2=2).add_(floor)
    return GaussianMixture(sizes / sizes.sum(), means, covariances)


def _spread_points(x: Tensor, n: int, gen: torch.Generator) -> Tensor:
    """n of the points (n, k), each drawn with a probability in proportion to its squared distance from those before
    (Arthur and Vassilvitskii 2007)."""
    chosen = [int(torch.randint(len(x), (1,), generator=gen))]
    distance = (x - x[chosen[0]]).square().sum(dim=1)  # (n,), squared, to the nearest chosen point
    for _ in range(n - 1):
        odds = distance if distance.sum() > 0 else torch.ones_like(distance)  # all points may be the same
        chosen.append(int(torch.multinomial(odds, 1, generator=gen)))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(dim=1))
    return x[chosen]
