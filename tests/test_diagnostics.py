"""The diagnostics against torch.distributions, numerical integrals, and linear models that are known exactly."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as dist

from tests.conftest import make_data, tiny_config
from tests.test_train import fit, mixed_configs, new_stack
from vae import diagnostics, linear_theory
from vae.config import Config
from vae.data import ImageData, facts
from vae.diagnostics import dead_units, decomposition, diagnose, moments
from vae.evaluate import evaluate
from vae.layers import generator
from vae.model import resolve
from vae.stack import Stack

COLUMNS = {
    "mutual_information",
    "mutual_information_ceiling",
    "aggregate_kl",
    "aggregate_mean_norm",
    "aggregate_variance_min",
    "aggregate_variance_mean",
    "aggregate_variance_max",
    "aggregate_gaussian_kl",
    "iw_elbo",
    "iw_gap",
    "encoder_dead_units",
    "decoder_dead_units",
}


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def mixture(mu: Tensor, logvar: Tensor) -> dist.MixtureSameFamily:
    """The aggregate posterior as torch has it: (M, k), (M, k)."""
    components = dist.Independent(dist.Normal(mu, (0.5 * logvar).exp()), 1)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(len(mu), dtype=torch.float64)), components)


def averaged(mu: Tensor, logvar: Tensor, repeats: int) -> dict[str, float]:
    """`decomposition` over several draws of the noise."""
    draws = [decomposition(mu, logvar, double(*mu.shape, seed=s)) for s in range(repeats)]
    return {name: float(np.mean([d[name] for d in draws])) for name in draws[0]}


# --- Mutual information and KL(q(z) || p(z))


def test_log_densities_are_those_of_torch():
    mu, logvar, z = double(7, 3), double(7, 3, seed=1), double(5, 3, seed=2)
    got = diagnostics.log_densities(z, mu, logvar) - 1.5 * math.log(2 * math.pi)
    expected = dist.Independent(dist.Normal(mu, (0.5 * logvar).exp()), 1).log_prob(z[:, None])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_log_densities_keep_their_digits_where_posteriors_are_narrow():
    """Standard deviations down to e^-9: variances of 1e-8."""
    mu, logvar = double(50, 20), -12 + 2 * double(50, 20, seed=1).clamp(-3, 3)
    z = mu + (0.5 * logvar).exp() * double(50, 20, seed=2)
    got = diagnostics.log_densities(z, mu, logvar).diagonal()
    expected = -0.5 * ((z - mu).square() / logvar.exp() + logvar).sum(dim=1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [3, 40, 1000])
def test_each_term_is_the_mean_log_ratio_of_the_mixtures_of_torch(monkeypatch: pytest.MonkeyPatch, chunk: int):
    monkeypatch.setattr(diagnostics, "CHUNK", chunk)
    mu, logvar, eps = double(40, 3), double(40, 3, seed=1) - 1, double(40, 3, seed=2)
    z = mu + (0.5 * logvar).exp() * eps
    own = dist.Independent(dist.Normal(mu, (0.5 * logvar).exp()), 1).log_prob(z)
    pooled = mixture(mu, logvar).log_prob(z)
    prior = dist.Independent(dist.Normal(torch.zeros(3).double(), 1.0), 1)
    kl = dist.kl_divergence(dist.Independent(dist.Normal(mu, (0.5 * logvar).exp()), 1), prior).mean().item()
    got = decomposition(mu, logvar, eps)
    assert got["mutual_information"] == pytest.approx((own - pooled).mean().item(), abs=1e-10)
    assert got["mutual_information_ceiling"] == pytest.approx(math.log(40))
    assert got["aggregate_kl"] == pytest.approx(kl - (own - pooled).mean().item(), abs=1e-10)


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
    assert got["mutual_information"] == pytest.approx(np.mean([kl_integral(grid, p, q) for p in by_image]), abs=0.01)
    assert got["aggregate_kl"] == pytest.approx(kl_integral(grid, q, prior), abs=0.01)


def test_posteriors_that_fill_the_prior_leave_no_hole():
    """mu ~ N(0, 1 - s²), sigma = s: then q(z) = N(0, 1), and I(x; z) = -ln s (a Gaussian channel)."""
    s = 0.2
    quantiles = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    mu = math.sqrt(1 - s**2) * dist.Normal(0.0, 1.0).icdf(quantiles)[:, None]
    got = averaged(mu, torch.full_like(mu, 2 * math.log(s)), 10)
    assert got["mutual_information"] == pytest.approx(-math.log(s), abs=0.02)
    assert got["aggregate_kl"] == pytest.approx(0, abs=0.02)


def test_collapse_has_no_information_and_no_hole():
    mu = torch.zeros(700, 4, dtype=torch.float64)
    got = decomposition(mu, mu, double(700, 4))
    assert got["mutual_information"] == pytest.approx(0, abs=1e-12)
    assert got["aggregate_kl"] == pytest.approx(0, abs=1e-12)


def test_one_posterior_for_all_images_is_all_hole():
    mu = torch.full((60, 2), 3.0, dtype=torch.float64)
    got = decomposition(mu, torch.zeros_like(mu), double(60, 2))
    assert got["mutual_information"] == pytest.approx(0, abs=1e-10)
    assert got["aggregate_kl"] == pytest.approx(9.0)  # 2 dimensions, ½·3² each


def test_posteriors_far_apart_reach_the_ceiling():
    mu = 1000.0 * torch.arange(600, dtype=torch.float64)[:, None]
    got = decomposition(mu, torch.zeros_like(mu) - 4, double(600, 1))
    assert got["mutual_information"] == pytest.approx(math.log(600), abs=1e-9)


def test_a_single_image_tells_nothing():
    got = decomposition(double(1, 3), double(1, 3, seed=1), double(1, 3, seed=2))
    assert (got["mutual_information"], got["mutual_information_ceiling"]) == (pytest.approx(0, abs=1e-12), 0.0)


# --- Moments


def test_moments_are_those_of_samples_and_of_torch():
    mu, logvar = double(50, 3) @ double(3, 3, seed=3) + 0.5, double(50, 3, seed=1) - 1
    q = mixture(mu, logvar)
    got = moments(mu, logvar)
    assert got["aggregate_mean_norm"] == pytest.approx(q.mean.norm().item())
    assert got["aggregate_variance_min"] == pytest.approx(q.variance.min().item())
    assert got["aggregate_variance_mean"] == pytest.approx(q.variance.mean().item())
    assert got["aggregate_variance_max"] == pytest.approx(q.variance.max().item())
    covariance = torch.from_numpy(np.cov(mu.T.numpy(), bias=True)) + logvar.exp().mean(dim=0).diag()
    gaussian = dist.MultivariateNormal(q.mean, covariance)
    prior = dist.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    assert got["aggregate_gaussian_kl"] == pytest.approx(dist.kl_divergence(gaussian, prior).item())


def test_the_gaussian_part_is_all_of_the_kl_for_one_gaussian_and_less_for_a_mixture():
    mu = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(500, 1)
    narrow = torch.full_like(mu, 2 * math.log(0.1))
    one = torch.ones_like(mu)
    assert moments(one, narrow)["aggregate_gaussian_kl"] == pytest.approx(
        decomposition(one, narrow, double(1000, 1))["aggregate_kl"]
    )
    hidden = moments(mu, narrow)  # two spikes with mean 0 and variance 1.01: no moment tells
    assert hidden["aggregate_gaussian_kl"] < 0.01
    assert decomposition(mu, narrow, double(1000, 1))["aggregate_kl"] > 1


# --- Importance-weighted bound


def linear_stack(data: ImageData, config: Config, variance: float, seed: int = 0) -> tuple[Stack, Tensor, Tensor]:
    """A linear VAE with the exact posterior of its decoder, whose loadings are orthogonal.

    Returns:
        The stack, the loadings W (k, D), and the decoder's mean of each class at z = 0, (classes, D).
    """
    config.model.kind, config.model.hidden, config.model.activation = "linear", None, None
    config.label_repeat.value = 1
    stack = new_stack(data, config)
    k, d, n = stack.arch.z_dim, stack.arch.input_dim, data.n_classes
    gen = generator(seed, "linear")
    loadings = torch.linalg.qr(torch.randn(d, k, generator=gen))[0].T * torch.linspace(0.3, 1.2, k)[:, None]
    offset = torch.rand(d, generator=gen)
    class_offset = (
        0.3 * torch.randn(n, d, generator=gen) if config.label_placement.kind == "both" else torch.zeros(n, d)
    )
    exact_posterior(stack, loadings, offset, class_offset, variance)
    return stack, loadings, offset + class_offset


def exact_posterior(stack: Stack, loadings: Tensor, offset: Tensor, class_offset: Tensor, variance: float) -> None:
    """Fills a linear stack of one: p(x|z, y) = N(W'z + offset_y, variance·I), q(z|x, y) = p(z|x, y) (Bishop 12.42)."""
    precision = 1 + loadings.square().sum(dim=1) / variance  # (k,)
    to_mu = (loadings / variance / precision[:, None]).T  # (D, k)
    with_label = stack.arch.encoder_repeat > 0
    filled = {
        "decoder.net.layers.0.weight": torch.cat([loadings, class_offset]) if with_label else loadings,
        "decoder.net.layers.0.bias": offset[None],
        "encoder.net.weight": torch.cat([to_mu, -class_offset @ to_mu]) if with_label else to_mu,
        "encoder.net.bias": -(offset @ to_mu)[None],
        "encoder.logvar": -precision.log()[None],
    }
    parameters = stack.parameters()
    assert set(filled) == set(parameters) - {"log_x_var"}
    for name, value in filled.items():
        parameters[name].data.copy_(value[None])


@pytest.mark.parametrize("placement", ["none", "both"])
@pytest.mark.parametrize("n_samples", [1, 16])
def test_the_bound_of_an_exact_posterior_is_the_likelihood(toy: ImageData, placement: str, n_samples: int):
    config = tiny_config(label_placement__kind=placement, x_var__value=0.05, beta__value=3.0)
    stack, loadings, means = linear_stack(toy, config, 0.05)
    x, y = toy.test_x.flatten(1), toy.test_y
    got = diagnose(stack, x, y, n_samples)[0]
    covariance = (loadings.T @ loadings + 0.05 * torch.eye(64)).double()
    expected = dist.MultivariateNormal(torch.zeros(64).double(), covariance).log_prob(x / 255 - means[y]).mean().item()
    assert got["iw_elbo"] == pytest.approx(expected, rel=1e-5)
    assert got["iw_gap"] == pytest.approx(0, abs=1e-3)


def test_the_bound_of_probabilistic_pca_is_the_closed_form():
    data = make_data(n_train=200, image_shape=(1, 4, 5))
    x_var, eigenvalues = 0.003, facts(data).eigenvalues
    config = tiny_config(label_placement__kind="none", x_var__value=x_var)
    stack, _, _ = linear_stack(data, config, x_var)
    x = data.train_x.flatten(1) / 255
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    loadings = (values[-4:] - x_var).clamp(min=0).sqrt()[:, None] * vectors.T[-4:]
    exact_posterior(stack, loadings, x.mean(dim=0), torch.zeros(3, 20), x_var)
    got = diagnose(stack, data.train_x.flatten(1), data.train_y, 4)[0]
    assert got["iw_elbo"] == pytest.approx(linear_theory.log_likelihood(eigenvalues, x_var, 4), rel=1e-4)


def test_per_dim_is_taken_at_its_effective_variance(toy: ImageData):
    config = tiny_config(objective__kind="per_dim", beta__value=0.01, label_placement__kind="none", x_var__value=7.0)
    stack, _, _ = linear_stack(toy, config, 0.01 * 64 / (2 * 4))
    assert diagnose(stack, toy.test_x.flatten(1), toy.test_y, 8)[0]["iw_gap"] == pytest.approx(0, abs=1e-3)


def test_the_bound_of_a_wrong_posterior_rises_to_the_likelihood(toy: ImageData):
    """From the ELBO, which lies below it by KL(q || posterior), with the samples (Burda et al. 2016, theorem 1)."""
    config = tiny_config(label_placement__kind="none", x_var__value=0.05)
    stack, _, _ = linear_stack(toy, config, 0.05)
    x, y = toy.test_x.flatten(1), toy.test_y
    exact = diagnose(stack, x, y, 1)[0]["iw_elbo"]
    logvar = stack.parameters()["encoder.logvar"].data
    shift, widening = 0.8 * (0.5 * logvar).exp(), 0.5
    stack.parameters()["encoder.net.bias"].data += shift
    logvar += widening
    wrong = 4 * 0.5 * (math.exp(widening) + 0.8**2 - 1 - widening)  # the KL, in 4 dimensions
    x, y = x.repeat(4, 1), y.repeat(4)  # 240 images
    bounds = {s: diagnose(stack, x, y, s)[0] for s in (1, 4, 32, 512)}
    values = [b["iw_elbo"] for b in bounds.values()]
    assert exact - values[0] == pytest.approx(wrong, abs=0.5)
    assert bounds[1]["iw_gap"] == 0.0
    assert exact - (bounds[512]["iw_elbo"] - bounds[512]["iw_gap"]) == pytest.approx(wrong, rel=0.03)  # its ELBO
    assert values == sorted(values)
    assert values[-1] == pytest.approx(exact, abs=0.05)


# --- The whole


def test_a_trained_run_agrees_with_evaluate(toy: ImageData):
    stack = fit(new_stack(toy, *mixed_configs()), toy)
    x, y = toy.test_x.flatten(1), toy.test_y
    for got, plain in zip(diagnose(stack, x, y), evaluate(stack, x, y), strict=True):
        assert set(got) == COLUMNS
        assert all(math.isfinite(v) for v in got.values())
        assert got["mutual_information"] + got["aggregate_kl"] == pytest.approx(plain["kl"], rel=1e-5)
        assert got["iw_gap"] >= 0
        # One z an image in evaluate, 64 here, of the same images.
        assert got["iw_elbo"] - got["iw_gap"] == pytest.approx(plain["elbo"], rel=0.05)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_a_run_has_the_same_diagnostics_alone_and_in_a_stack(toy: ImageData, kind: str):
    configs = mixed_configs()
    for c in configs:
        c.model.kind = kind
        c.model.hidden = [16] if kind == "mlp" else None
        c.model.channels = [4, 6] if kind == "conv" else None
    x, y = toy.test_x.flatten(1), toy.test_y
    state = torch.random.get_rng_state()
    together = diagnose(new_stack(toy, *configs), x, y)
    assert torch.equal(torch.random.get_rng_state(), state)
    for k, config in enumerate(configs):
        assert diagnose(new_stack(toy, config), x, y)[0] == together[k]


def test_runs_of_other_seeds_see_the_same_images_and_other_noise(toy: ImageData):
    config = tiny_config(label_placement__kind="none", x_var__value=0.05)
    stack, _, _ = linear_stack(toy, config, 0.05)
    x, y = toy.test_x.flatten(1), toy.test_y
    config.seed = 0
    first = diagnose(stack, x, y)[0]
    assert diagnose(stack, x, y)[0] == first
    config.seed = 1
    second = diagnose(stack, x, y)[0]
    assert second["aggregate_gaussian_kl"] == first["aggregate_gaussian_kl"]
    assert second["mutual_information"] != first["mutual_information"]


def test_of_many_images_sorted_by_class_all_classes_are_taken(toy: ImageData, monkeypatch: pytest.MonkeyPatch):
    """image_folder comes sorted by class: the first M images may be of one class only."""
    monkeypatch.setattr(diagnostics, "MAX_IMAGES", 18)
    stack = new_stack(toy, tiny_config())
    encode, seen = stack.model.encode, []
    monkeypatch.setattr(stack.model, "encode", lambda x, y: seen.extend(y[0].tolist()) or encode(x, y))
    order = toy.test_y.argsort(stable=True)
    got = diagnose(stack, toy.test_x.flatten(1)[order], toy.test_y[order], 1)[0]
    assert got["mutual_information_ceiling"] == pytest.approx(math.log(18))
    seen = seen[:18]  # the count of dead units encodes them once more
    assert min(seen.count(c) for c in range(3)) >= 3


def test_dead_units_are_counted_run_by_run():
    config = tiny_config(model__hidden=[8, 4])
    arch = resolve(config, (1, 8, 8), 3, [])
    stack = Stack([config, replace(config, seed=1)], arch, torch.device("cpu"))
    x, y = torch.rand(2, 50, 64), torch.randint(3, (2, 50))
    with torch.no_grad():
        parameters = dict(stack.model.named_parameters())
        for p in parameters.values():
            p.fill_(0.1)  # all alive
        parameters["encoder.net.layers.0.bias"][1, 0, :3] = -1e3  # run 1: 3 of the encoder's 12 units
        parameters["decoder.net.layers.1.bias"][0, 0, :] = -1e3  # run 0: the decoder's last 8 of 12
        found = dead_units(stack, x, y)
    assert [f["encoder_dead_units"] for f in found] == [0, 3 / 12]
    assert [f["decoder_dead_units"] for f in found] == [8 / 12, 0]
    smooth = Stack([config], replace(arch, activation="tanh"), torch.device("cpu"))
    assert dead_units(smooth, x[:1], y[:1]) == [{"encoder_dead_units": None, "decoder_dead_units": None}]
