"""The closed form on held-out images, against textbook formulas, draws and trained VAEs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.linear_vae import D, Data, LinearVAE, assert_agrees, between, make_data, train
from vae import theory

SEEDS = [0, 1, 2]


def held_out_images(seed: int, n: int = 70) -> np.ndarray:
    """(n, D): about another mean and of other variances than the training images."""
    rng = np.random.default_rng(100 + seed)
    return 0.7 + rng.standard_normal((n, D)) * rng.uniform(0.3, 1.5, D) @ np.linalg.qr(rng.standard_normal((D, D)))[0]


def variances_of(data: Data, x: np.ndarray) -> np.ndarray:
    """(D,): mean squares along the principal components of the training images, the largest component first."""
    directions = np.linalg.eigh(np.cov(data.x.T, bias=True))[1][:, ::-1]
    return np.square((x - data.x.mean(0)) @ directions).mean(0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("q", "z_dim"), [(3, 5), (4, 2), (4, 9), (6, 6), (0, 3)])
def test_held_out_is_the_explicit_linear_vae_on_other_images(seed: int, q: int, z_dim: int) -> None:
    """Probabilistic PCA by its textbook formulas: the maximum-likelihood loadings and Bayes' posterior for them."""
    data, x = make_data(seed), held_out_images(seed)
    t = between(data.eigenvalues, q)
    values, vectors = np.linalg.eigh(np.cov(data.x.T, bias=True))
    top = slice(max(D - z_dim, 0), None)
    loadings = vectors[:, top] * np.sqrt(np.maximum(values[top] - t, 0))  # W (D, k)
    covariance = np.linalg.inv(loadings.T @ loadings / t + np.eye(loadings.shape[1]))  # (k, k) of z given x
    mean = data.x.mean(0)
    mu = (x - mean) @ loadings @ covariance / t  # (n, k)
    kls = 0.5 * (np.square(mu).mean(0) + np.diag(covariance) - 1 - np.log(np.diag(covariance)))  # (k,)
    sse_mean = np.square(x - mean - mu @ loadings.T).sum(1).mean()

    best = theory.held_out(data.eigenvalues, variances_of(data, x), t, z_dim)
    assert best.kl == pytest.approx(kls.sum(), rel=1e-9, abs=1e-12)
    assert best.kl_per_dim[: len(kls)] == pytest.approx(np.sort(kls)[::-1], rel=1e-9, abs=1e-12)
    assert best.kl_per_dim.shape == (z_dim,)
    assert best.sse_mean == pytest.approx(sse_mean, rel=1e-9)
    assert best.sse == pytest.approx(sse_mean + np.trace(loadings @ covariance @ loadings.T), rel=1e-9)
    assert best.active_units == min(q, z_dim)

    z = mu + np.random.default_rng(seed).standard_normal((4000, *mu.shape)) @ np.linalg.cholesky(covariance).T
    sampled = np.square(x - mean - z @ loadings.T).sum(-1).mean()  # over draws and images
    assert best.sse == pytest.approx(sampled, rel=5e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_trained_vae_is_the_closed_form_on_held_out_images_too(seed: int) -> None:
    data, x = make_data(seed, class_spread=0), held_out_images(seed)
    t = between(data.eigenvalues, 3)
    model = train(LinearVAE(data, 5, seed=seed), x_var=t)
    model.x = model.seen = torch.tensor(x)
    model.told = torch.ones(len(x), 1).double()
    assert_agrees(model, theory.held_out(data.eigenvalues, variances_of(data, x), t, 5), tolerance=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("z_dim", [1, 4, 12])
def test_held_out_with_the_variances_of_training_is_the_optimum(seed: int, z_dim: int) -> None:
    eigenvalues = make_data(seed).eigenvalues
    for t in [*np.geomspace(1e-3, 10, 20), *eigenvalues]:
        expected, found = (
            theory.optimum(eigenvalues, t, z_dim),
            theory.held_out(eigenvalues[::-1], eigenvalues[::-1], t, z_dim),
        )
        assert vars(found) == {
            name: pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in vars(expected).items()
        }


@pytest.mark.parametrize("z_dim", [1, 4, 12])
def test_held_out_curve_is_held_out_at_each_t(z_dim: int) -> None:
    data = make_data(0)
    variances = variances_of(data, held_out_images(0))
    ts = np.geomspace(1e-3, 10, 40).reshape(8, 5)
    kl, sse = theory.held_out_curve(data.eigenvalues, variances, ts, z_dim)
    points = [theory.held_out(data.eigenvalues, variances, t, z_dim) for t in ts.flat]
    assert kl.shape == sse.shape == ts.shape
    assert kl.ravel() == pytest.approx([p.kl for p in points])
    assert sse.ravel() == pytest.approx([p.sse for p in points])


def test_held_out_by_hand() -> None:
    best = theory.held_out([0.5, 4.0, 0.0, 2.0], [3.0, 2.0, 0.1, 5.0], t=1.0, z_dim=2)  # any order, but the same
    assert best.sse_mean == pytest.approx(2 / 16 + 5 / 4 + 3 + 0.1)
    assert best.sse == pytest.approx(best.sse_mean + 3 / 4 + 1 / 2)
    kls = [0.5 * (1 / 4 + 2 * 3 / 16 - 1 + math.log(4)), 0.5 * (1 / 2 + 5 * 1 / 4 - 1 + math.log(2))]
    assert best.kl_per_dim == pytest.approx(sorted(kls, reverse=True))


@pytest.mark.parametrize(
    ("label_placement", "spectra"), [("both", "ww"), ("decoder", "wu"), ("encoder", "uu"), ("none", "uu")]
)
def test_prediction_on_held_out_images(label_placement: str, spectra: str) -> None:
    whole, within, variances, variances_within = [4.0, 2.0], [3.0, 1.0], [5.0, 1.0], [2.0, 2.0]
    pair = theory.prediction(whole, within, label_placement, 0.5, 1, variances, variances_within)
    expected = {
        "u": theory.held_out(whole, variances, 0.5, 1),
        "w": theory.held_out(within, variances_within, 0.5, 1),
    }
    assert [best.sse for best in pair] == [expected[letter].sse for letter in spectra]
    assert [best.kl for best in pair] == [expected[letter].kl for letter in spectra]
