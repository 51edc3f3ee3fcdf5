"""Gaussians and mixtures against numpy, torch.distributions, scikit-learn and mixtures that are known."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Reference
from torch import Tensor
from torch import distributions as dist

from vae import density
from vae.density import GaussianMixture, expectation_maximization, gaussian, log_joint, mixture
from vae.seeding import generator


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def two_clusters(n: int = 2000) -> Tensor:
    """A quarter of the points around (-4, 0), round; the others around (4, 1), correlated."""
    first = torch.tensor([-4.0, 0.0]) + 0.5 * double(n // 4, 2)
    root = torch.tensor([[1.0, 0.0], [0.8, 0.3]]).double()
    return torch.cat([first, torch.tensor([4.0, 1.0]) + double(n - n // 4, 2, seed=1) @ root.T])


def test_a_gaussian_has_the_moments_of_its_points():
    x = double(50, 3) @ double(3, 3, seed=1) + 2
    found = gaussian(x)
    np.testing.assert_allclose(found.means[0], x.numpy().mean(axis=0))
    np.testing.assert_allclose(found.covariances[0], np.cov(x.T.numpy(), bias=True))
    assert found.weights.tolist() == [1.0]


@pytest.mark.parametrize("n", [1, 4])
def test_samples_of_few_points_stay_in_the_plane_of_these(n: int):
    """Four points in eight dimensions span a space of three: the covariance is singular."""
    x = double(n, 8)
    z = gaussian(x).sample(500, generator(0, "draw"))
    off = z - x.mean(dim=0)
    inside = torch.linalg.svd(x - x.mean(dim=0)).Vh[: n - 1]  # (n - 1, 8)
    torch.testing.assert_close(off, off @ inside.T @ inside, rtol=0, atol=1e-7)
    assert (off.std(dim=0).max() > 0.1) == (n > 1)


def test_samples_have_the_weights_and_moments_of_the_mixture():
    roots = torch.tril(double(2, 3, 3)) + 2 * torch.eye(3)
    known = GaussianMixture(
        torch.tensor([0.3, 0.7]).double(), torch.tensor([[-20.0, 0, 0], [20.0, 0, 0]]).double(), roots @ roots.mT
    )
    z = known.sample(200_000, generator(0, "draw"))
    left = z[:, 0] < 0
    assert left.double().mean().item() == pytest.approx(0.3, abs=0.005)
    for j, own in enumerate((z[left], z[~left])):
        torch.testing.assert_close(own.mean(dim=0), known.means[j], rtol=0, atol=0.05)
        torch.testing.assert_close(own.T.cov(), known.covariances[j], rtol=0.03, atol=0.1)


def test_log_joint_is_that_of_torch():
    roots = torch.tril(double(4, 3, 3)) + 3 * torch.eye(3)
    fitted = GaussianMixture(torch.full((4,), 0.25).double(), double(4, 3, seed=1), roots @ roots.mT)
    x = double(7, 3, seed=2)
    expected = dist.MultivariateNormal(fitted.means, fitted.covariances).log_prob(x[:, None]) + fitted.weights.log()
    torch.testing.assert_close(log_joint(fitted, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("k", "n_components"), [(2, 3), (5, 4)])
def test_em_agrees_with_scikit_learn_from_the_same_start(k: int, n_components: int):
    x = torch.cat([double(150, k, seed=s) @ double(k, k, seed=9 + s) + 2 * double(k, seed=20 + s) for s in range(3)])
    shares = double(len(x), n_components, seed=5).softmax(dim=1)
    ours = expectation_maximization(x, shares, floor=1e-3)
    theirs = Reference(n_components, reg_covar=1e-3, tol=density.TOLERANCE, max_iter=density.STEPS)
    theirs._initialize_parameters = lambda X, random_state, xp=np: theirs._initialize(X, shares.numpy())  # type: ignore[method-assign]
    theirs.fit(x.numpy())
    assert theirs.converged_
    fitted = theirs.weights_, theirs.means_, theirs.covariances_
    for own, reference in zip((ours.weights, ours.means, ours.covariances), fitted, strict=True):
        np.testing.assert_allclose(own, np.array(reference), rtol=1e-6, atol=1e-8)


def test_a_known_mixture_is_found():
    found = mixture(two_clusters(), 2, 1e-6, generator(0, "fit"))
    order = found.means[:, 0].argsort()
    torch.testing.assert_close(found.weights[order], torch.tensor([0.25, 0.75]).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.means[order], torch.tensor([[-4.0, 0.0], [4.0, 1.0]]).double(), rtol=0, atol=0.08)
    root = torch.tensor([[1.0, 0.0], [0.8, 0.3]]).double()
    expected = torch.stack([0.25 * torch.eye(2).double(), root @ root.T])
    torch.testing.assert_close(found.covariances[order], expected, rtol=0, atol=0.08)


def test_points_that_are_all_the_same_and_more_components_than_clusters_give_a_usable_mixture():
    same = mixture(torch.ones(30, 3).double(), 3, 1e-9, generator(0, "fit"))
    torch.testing.assert_close(same.sample(10, generator(0, "draw")), torch.ones(10, 3).double(), rtol=0, atol=1e-3)
    many = mixture(two_clusters(60), 10, 1e-6, generator(0, "fit"))
    assert many.sample(100, generator(0, "draw")).isfinite().all()
    assert many.weights.sum().item() == pytest.approx(1)
