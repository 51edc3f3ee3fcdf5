"""The bounds on the likelihood against torch.distributions and linear models that are known exactly."""

import dataclasses
import math

import pytest
import torch
from torch import distributions as dist

from tests.conftest import make_data, tiny_config
from tests.models import exact_linear_model, new_stack, set_exact_posterior, subject_of
from vae import theory
from vae.data import ImageData, facts
from vae.metrics import Subject, compute, likelihood
from vae.stack import Stack


def bound(stack: Stack, data: ImageData, n_samples: int = 64) -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "IW_SAMPLES", n_samples)
        return likelihood.importance_weighted_elbo(subject_of(stack, data))


@pytest.mark.parametrize("placement", ["none", "both"])
@pytest.mark.parametrize("n_samples", [1, 16])
def test_the_bound_of_an_exact_posterior_is_the_likelihood(toy: ImageData, placement: str, n_samples: int):
    config = tiny_config(label_placement__kind=placement, x_var__value=0.05, beta__value=3.0)
    stack, loadings, means = exact_linear_model(toy, config, 0.05)
    x, y = toy.test_x.flatten(1), toy.test_y
    got = bound(stack, toy, n_samples)
    covariance = (loadings.T @ loadings + 0.05 * torch.eye(64)).double()
    expected = dist.MultivariateNormal(torch.zeros(64).double(), covariance).log_prob(x / 255 - means[y]).mean().item()
    assert got["test_iw_elbo"] == pytest.approx(expected, rel=1e-5)
    assert got["test_iw_gap"] == pytest.approx(0, abs=1e-3)


def test_the_bound_of_probabilistic_pca_is_the_closed_form():
    data = make_data(n_train=200, image_shape=(1, 4, 5))
    data = dataclasses.replace(data, test_x=data.train_x, test_y=data.train_y)
    x_var, eigenvalues = 0.003, facts(data).eigenvalues
    config = tiny_config(label_placement__kind="none", x_var__value=x_var)
    stack, _, _ = exact_linear_model(data, config, x_var)
    x = data.train_x.flatten(1) / 255
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    loadings = (values[-4:] - x_var).clamp(min=0).sqrt()[:, None] * vectors.T[-4:]
    set_exact_posterior(stack, loadings, x.mean(dim=0), torch.zeros(3, 20), x_var)
    expected = theory.log_likelihood(eigenvalues, x_var, 4)
    assert bound(stack, data, 4)["test_iw_elbo"] == pytest.approx(expected, rel=1e-4)
    # z is sampled once for each image here.
    elbo = compute("likelihood", subject_of(stack, data)).values["train_elbo"]
    assert elbo == pytest.approx(expected, rel=0.02)


def test_per_dim_is_taken_at_its_effective_variance(toy: ImageData):
    config = tiny_config(objective__kind="per_dim", beta__value=0.01, label_placement__kind="none", x_var__value=7.0)
    stack, _, _ = exact_linear_model(toy, config, 0.01 * 64 / (2 * 4))
    assert bound(stack, toy, 8)["test_iw_gap"] == pytest.approx(0, abs=1e-3)


def test_the_bound_of_a_wrong_posterior_rises_to_the_likelihood(toy: ImageData):
    """From the ELBO, which lies below it by KL(q || posterior), with the samples (Burda et al. 2016, theorem 1)."""
    config = tiny_config(label_placement__kind="none", x_var__value=0.05)
    stack, _, _ = exact_linear_model(toy, config, 0.05)
    exact = bound(stack, toy, 1)["test_iw_elbo"]
    logvar = stack.parameters["encoder.logvar"].data
    shift, widening = 0.8 * (0.5 * logvar).exp(), 0.5
    stack.parameters["encoder.net.bias"].data += shift
    logvar += widening
    wrong = 4 * 0.5 * (math.exp(widening) + 0.8**2 - 1 - widening)  # the KL, in 4 dimensions
    four = dataclasses.replace(toy, test_x=toy.test_x.repeat(4, 1, 1, 1), test_y=toy.test_y.repeat(4))  # 240 images
    bounds = {s: bound(stack, four, s) for s in (1, 4, 32, 512)}
    values = [b["test_iw_elbo"] for b in bounds.values()]
    assert exact - values[0] == pytest.approx(wrong, abs=0.5)
    assert bounds[1]["test_iw_gap"] == 0.0
    its_elbo = bounds[512]["test_iw_elbo"] - bounds[512]["test_iw_gap"]
    assert exact - its_elbo == pytest.approx(wrong, rel=0.03)
    assert values == sorted(values)
    assert values[-1] == pytest.approx(exact, abs=0.05)


def test_the_elbo_is_that_of_torch_distributions_per_image(toy: ImageData):
    subject = subject_of(new_stack(toy, tiny_config(x_var__value=0.2, beta__value=5.0)), toy)
    values = compute("likelihood", subject).values
    splits = {name.partition("_")[0] for name in values if name != "likelihood_of"}
    assert splits == {"train", "test"}, "there are no validation images"
    assert values["likelihood_of"] == "density of pixels in [0, 1]"
    x = toy.test_x.flatten(1) / 255
    mu, logvar = subject.model.encode(toy.test_x, toy.test_y)
    q = dist.Normal(mu, (0.5 * logvar).exp())
    kl = dist.kl_divergence(q, dist.Normal(torch.zeros_like(mu), 1.0)).sum(dim=1)
    gen = torch.Generator().manual_seed(0)
    many = []  # the metric has one z for each image
    for _ in range(50):
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=gen)
        x_hat = subject.model.decode(z, toy.test_y).flatten(1)
        many.append(dist.Normal(x_hat, 0.2**0.5).log_prob(x).sum(dim=1) - kl)
    assert values["test_elbo"] == pytest.approx(torch.stack(many).mean().item(), rel=0.02)
    assert values["test_iw_elbo"] - values["test_iw_gap"] == pytest.approx(torch.stack(many).mean().item(), rel=0.01)
    assert values["test_elbo_per_dim"] == pytest.approx(values["test_elbo"] / 64)


def test_the_bound_goes_on_with_the_noise_of_the_posteriors(toy: ImageData):
    """Both families draw from one stream: whichever comes first, the numbers are the same."""
    stack = new_stack(toy, tiny_config())
    one, other = subject_of(stack, toy), subject_of(stack, toy)

    def computed(subject: Subject, *families: str) -> dict[str, float]:
        return {name: value for family in families for name, value in compute(family, subject).values.items()}

    assert computed(one, "likelihood", "posterior") == computed(other, "posterior", "likelihood")


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("laplace", 8.0), ("continuous_bernoulli", 8.0), ("discretized_logistic", 0.0), ("bernoulli", None)],
)
def test_bits_per_dimension_are_those_of_8_bit_pixels_or_none(toy: ImageData, kind: str, bits: float | None):
    config = tiny_config(likelihood__kind=kind, likelihood__targets="pixels" if kind == "bernoulli" else None)
    values = compute("likelihood", subject_of(new_stack(toy, config), toy)).values
    expected = None if bits is None else bits - values["test_elbo"] / (64 * math.log(2))
    assert values["test_bits_per_dim"] == (None if expected is None else pytest.approx(expected))


def test_the_bound_of_binarized_pixels_is_that_of_torch_distributions(toy: ImageData):
    """One binarized image each, many z: the mean over both is the ELBO of Bernoulli pixels."""
    config = tiny_config(likelihood__kind="bernoulli", likelihood__targets="binarized")
    subject = subject_of(new_stack(toy, config), toy)
    found = compute("likelihood", subject).values
    mu, logvar = subject.model.encode(toy.test_x, toy.test_y)
    q = dist.Normal(mu, (0.5 * logvar).exp())
    kl = dist.kl_divergence(q, dist.Normal(torch.zeros_like(mu), 1.0)).sum(dim=1).mean()
    logits = subject.model.parameters(q.sample(), toy.test_y)
    expected = dist.Bernoulli(logits=logits).log_prob(torch.bernoulli(toy.test_x / 255)).flatten(1).sum(dim=1).mean()
    assert found["test_iw_elbo"] - found["test_iw_gap"] == pytest.approx((expected - kl).item(), rel=0.02)
