"""The posterior metrics against torch.distributions, numerical integrals, and weights that are known."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as dist

from tests.conftest import tiny_config
from tests.models import exact_linear_model, new_stack, subject_of
from vae.data import ImageData
from vae.metrics import compute, posterior
from vae.metrics.posterior import dead_units, decomposition, log_densities, moments
from vae.priors import Mixture, Standard
from vae.seeding import generator
from vae.trained import TrainedVAE

STANDARD = Standard(1)


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def mixture(mu: Tensor, logvar: Tensor) -> dist.MixtureSameFamily:
    """The aggregate posterior as torch has it: (M, k), (M, k)."""
    components = dist.Independent(dist.Normal(mu, (0.5 * logvar).exp()), 1)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(len(mu), dtype=torch.float64)), components)


def averaged(mu: Tensor, logvar: Tensor, repeats: int) -> dict[str, float]:
    """`decomposition` over several draws of the noise."""
    draws = [decomposition(mu, logvar, double(*mu.shape, seed=s), STANDARD) for s in range(repeats)]
    return {name: float(np.mean([d[name] for d in draws])) for name in draws[0]}


# --- Mutual information and KL(q(z) || p(z))


def test_log_densities_are_those_of_torch():
    mu, logvar, z = double(7, 3), double(7, 3, seed=1), double(5, 3, seed=2)
    zero = torch.zeros_like(z)
    got = log_densities(z, zero, zero, mu, logvar) - 1.5 * math.log(2 * math.pi)
    expected = dist.Independent(dist.Normal(mu, (0.5 * logvar).exp()), 1).log_prob(z[:, None])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_log_densities_keep_their_digits_where_posteriors_are_narrow():
    """Standard deviations down to e^-9: variances of 1e-8."""
    mu, logvar, eps = double(50, 20), -12 + 2 * double(50, 20, seed=1).clamp(-3, 3), double(50, 20, seed=2)
    got = log_densities(mu, logvar, eps, mu, logvar).diagonal()
    expected = -0.5 * (eps.square() + logvar).sum(dim=1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_posteriors_of_almost_no_variance_tell_images_apart_or_tell_nothing():
    """Variances of e^-115, which a run that died had: far below the last digit of a mean."""
    logvar, eps = torch.full((30, 2), -115.0, dtype=torch.float64), double(30, 2, seed=1)
    apart = decomposition(double(30, 2), logvar, eps, STANDARD)
    assert apart["test_mutual_information"] == pytest.approx(math.log(30), abs=1e-10)
    assert apart["test_aggregate_kl"] > 100
    same = decomposition(torch.full((30, 2), 0.7, dtype=torch.float64), logvar, eps, STANDARD)
    assert same["test_mutual_information"] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("chunk", [3, 40, 1000])
def test_each_term_is_the_mean_log_ratio_of_the_mixtures_of_torch(monkeypatch: pytest.MonkeyPatch, chunk: int):
    monkeypatch.setattr(posterior, "CHUNK", chunk)
    mu, logvar, eps = double(40, 3), double(40, 3, seed=1) - 1, double(40, 3, seed=2)
    z = mu + (0.5 * logvar).exp() * eps
    own = dist.Independent(dist.Normal(mu, (0.5 * logvar).exp()), 1).log_prob(z)
    pooled = mixture(mu, logvar).log_prob(z)
    prior = dist.Independent(dist.Normal(torch.zeros(3).double(), 1.0), 1)
    kl = dist.kl_divergence(dist.Independent(dist.Normal(mu, (0.5 * logvar).exp()), 1), prior).mean().item()
    got = decomposition(mu, logvar, eps, STANDARD)
    assert got["test_mutual_information"] == pytest.approx((own - pooled).mean().item(), abs=1e-10)
    assert got["test_mutual_information_ceiling"] == pytest.approx(math.log(40))
    assert got["test_aggregate_kl"] == pytest.approx(kl - (own - pooled).mean().item(), abs=1e-10)


def density(grid: np.ndarray, mu: Sequence[float], sigma: Sequence[float]) -> np.ndarray:
    """The density of a one-dimensional mixture of equal weights."""
    m, s = np.asarray(mu)[:, None], np.asarray(sigma)[:, None]
    return np.mean(np.exp(-0.5 * ((grid - m) / s) ** 2) / (s * math.sqrt(2 * math.pi)), axis=0)


def kl_integral(grid: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    inside = p > 1e-30
    p, q = p[inside], q[inside]
    return float(np.sum(p * np.log(p / q)) * (grid[1] - grid[0]))


def test_the_terms_are_the_integrals_of_a_one_dimensional_mixture():
    """Each integrated on a grid by its own definition, without the decomposition."""
    means, sigmas = [-1.5, -1.0, 0.2, 0.8, 2.5], [0.3, 0.5, 0.4, 0.2, 0.7]
    grid = np.linspace(-12, 12, 100_001)
    q, prior = density(grid, means, sigmas), density(grid, [0.0], [1.0])
    copies = 200  # of the five posteriors: the same mixture, and less noise
    mu, sigma = (torch.tensor(v, dtype=torch.float64).repeat(copies)[:, None] for v in (means, sigmas))
    got = averaged(mu, 2 * sigma.log(), 20)
    by_image = [density(grid, [m], [s]) for m, s in zip(means, sigmas, strict=True)]
    assert got["test_mutual_information"] == pytest.approx(
        np.mean([kl_integral(grid, p, q) for p in by_image]), abs=0.01
    )
    assert got["test_aggregate_kl"] == pytest.approx(kl_integral(grid, q, prior), abs=0.01)


def test_posteriors_that_fill_the_prior_leave_no_hole():
    """mu ~ N(0, 1 - s²), sigma = s: then q(z) = N(0, 1), and I(x; z) = -ln s (a Gaussian channel)."""
    s = 0.2
    quantiles = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    mu = math.sqrt(1 - s**2) * dist.Normal(0.0, 1.0).icdf(quantiles)[:, None]
    got = averaged(mu, torch.full_like(mu, 2 * math.log(s)), 10)
    assert got["test_mutual_information"] == pytest.approx(-math.log(s), abs=0.02)
    assert got["test_aggregate_kl"] == pytest.approx(0, abs=0.02)


def test_collapse_has_no_information_and_no_hole():
    mu = torch.zeros(700, 4, dtype=torch.float64)
    got = decomposition(mu, mu, double(700, 4), STANDARD)
    assert got["test_mutual_information"] == pytest.approx(0, abs=1e-12)
    assert got["test_aggregate_kl"] == pytest.approx(0, abs=1e-12)


def test_one_posterior_for_all_images_is_all_hole():
    mu = torch.full((60, 2), 3.0, dtype=torch.float64)
    got = decomposition(mu, torch.zeros_like(mu), double(60, 2), STANDARD)
    assert got["test_mutual_information"] == pytest.approx(0, abs=1e-10)
    assert got["test_aggregate_kl"] == pytest.approx(9.0)  # 2 dimensions, ½·3² each


def test_posteriors_far_apart_reach_the_ceiling():
    mu = 1000.0 * torch.arange(600, dtype=torch.float64)[:, None]
    got = decomposition(mu, torch.zeros_like(mu) - 4, double(600, 1), STANDARD)
    assert got["test_mutual_information"] == pytest.approx(math.log(600), abs=1e-9)


def test_a_single_image_tells_nothing():
    got = decomposition(double(1, 3), double(1, 3, seed=1), double(1, 3, seed=2), STANDARD)
    assert (got["test_mutual_information"], got["test_mutual_information_ceiling"]) == (
        pytest.approx(0, abs=1e-12),
        0.0,
    )


# --- Moments


def test_moments_are_those_of_samples_and_of_torch():
    mu, logvar = double(50, 3) @ double(3, 3, seed=3) + 0.5, double(50, 3, seed=1) - 1
    q = mixture(mu, logvar)
    got = moments(mu, logvar)
    assert got["test_aggregate_mean_norm"] == pytest.approx(q.mean.norm().item())
    assert got["test_aggregate_variance_min"] == pytest.approx(q.variance.min().item())
    assert got["test_aggregate_variance_mean"] == pytest.approx(q.variance.mean().item())
    assert got["test_aggregate_variance_max"] == pytest.approx(q.variance.max().item())
    covariance = torch.from_numpy(np.cov(mu.T.numpy(), bias=True)) + logvar.exp().mean(dim=0).diag()
    gaussian = dist.MultivariateNormal(q.mean, covariance)
    prior = dist.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    assert got["test_aggregate_gaussian_kl"] == pytest.approx(dist.kl_divergence(gaussian, prior).item())


def test_the_gaussian_part_is_all_of_the_kl_for_one_gaussian_and_less_for_a_mixture():
    mu = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(500, 1)
    narrow = torch.full_like(mu, 2 * math.log(0.1))
    one = torch.ones_like(mu)
    assert moments(one, narrow)["test_aggregate_gaussian_kl"] == pytest.approx(
        decomposition(one, narrow, double(1000, 1), STANDARD)["test_aggregate_kl"]
    )
    hidden = moments(mu, narrow)  # two spikes with mean 0 and variance 1.01: no moment tells
    assert hidden["test_aggregate_gaussian_kl"] < 0.01
    assert decomposition(mu, narrow, double(1000, 1), STANDARD)["test_aggregate_kl"] > 1


# --- The whole


def test_the_kl_splits_into_information_and_what_the_aggregate_costs(toy: ImageData):
    subject = subject_of(new_stack(toy, tiny_config()), toy)
    values = compute("posterior", subject).values
    mu, logvar = subject.model.encode(toy.test_x, toy.test_y)
    normal = dist.Normal(mu, (0.5 * logvar).exp())
    kl = dist.kl_divergence(normal, dist.Normal(torch.zeros_like(mu), 1.0)).sum(dim=1).mean().item()
    assert values["test_mutual_information"] + values["test_aggregate_kl"] == pytest.approx(kl, rel=1e-5)
    assert values["test_mutual_information_ceiling"] == pytest.approx(math.log(60))


def test_other_seeds_see_the_same_images_and_other_noise(toy: ImageData):
    config = tiny_config(label_placement__kind="none", x_var__value=0.05)
    stack, _, _ = exact_linear_model(toy, config, 0.05)
    state = torch.random.get_rng_state()
    first = compute("posterior", subject_of(stack, toy)).values
    assert torch.equal(torch.random.get_rng_state(), state)
    assert compute("posterior", subject_of(stack, toy)).values == first
    config.seed = 1
    second = compute("posterior", subject_of(stack, toy)).values
    assert second["test_aggregate_gaussian_kl"] == first["test_aggregate_gaussian_kl"]
    assert second["test_mutual_information"] != first["test_mutual_information"]


def test_of_many_images_sorted_by_class_all_classes_are_taken(toy: ImageData, monkeypatch: pytest.MonkeyPatch):
    """image_folder comes sorted by class: the first M images may be of one class only."""
    monkeypatch.setattr(posterior, "MAX_IMAGES", 18)
    order = toy.test_y.argsort(stable=True)
    data = dataclasses.replace(toy, test_x=toy.test_x[order], test_y=toy.test_y[order])
    found = posterior.posteriors(subject_of(new_stack(data, tiny_config()), data))
    assert found.mu.shape == found.eps.shape == (18, 4)
    seen = data.test_y[found.index].tolist()
    assert min(seen.count(c) for c in range(3)) >= 3


def test_dead_units_are_counted_in_each_network(toy: ImageData):
    stack = new_stack(toy, tiny_config(model__hidden=[8, 4]))
    with torch.no_grad():
        parameters = dict(stack.model.named_parameters())
        for p in parameters.values():
            p.fill_(0.1)  # all alive
        parameters["encoder.net.layers.0.bias"][:3] = -1e3  # 3 of the encoder's 12 units
        parameters["decoder.net.layers.1.bias"][:] = -1e3  # the last 8 of the decoder's 12
    subject = subject_of(stack, toy)
    assert dead_units(subject) == {"test_encoder_dead_units": 3 / 12, "test_decoder_dead_units": 8 / 12}
    arch = dataclasses.replace(stack.arch, network={**stack.arch.network, "activation": "tanh"})
    smooth = TrainedVAE(arch, stack.model_state(0), toy.classes)
    assert set(dead_units(dataclasses.replace(subject, model=smooth)).values()) == {None}


def test_the_kl_to_a_learned_prior_is_estimated_from_the_samples():
    """Two components far apart, and posteriors that are exactly these: no hole, and ln 2 nats of information."""
    prior = Mixture(2, components=2)
    prior.mu.data = torch.tensor([[-9.0, 0.0], [9.0, 0.0]])
    mu = prior.mu.data.double().repeat(400, 1)  # (800, 2)
    got = decomposition(mu, torch.zeros_like(mu), double(800, 2), prior)
    assert got["test_mutual_information"] == pytest.approx(math.log(2), abs=1e-6)
    assert got["test_aggregate_kl"] == pytest.approx(0, abs=1e-5)
