"""Each bug against the code of someone who makes it, and models trained with it against the closed form."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import make_data, tiny_config
from tests.models import new_stack, subject_of
from tests.test_train import fit
from vae import bugs
from vae.buggy import KINDS, Buggy
from vae.config import BUGGY_OBJECTIVES, BUGS, Config, ConfigError, validate
from vae.data import ImageData, facts
from vae.metrics.reconstruction import errors
from vae.model import VAE, resolve
from vae.objectives import objective_of

B = 6


def configured(bug: str, **changes: Any) -> Config:
    config = tiny_config(**changes)
    config.bug.kind = bug
    return config


def as_written(
    bug: str, config: Config, model: VAE, x: Tensor, y: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, error and KL of a batch as the author of the bug wrote them; the last two (B,)."""
    d, k = x[0].numel(), eps.shape[1]
    mu, logvar = model.encoder(x, model.encoder_labels[y]).chunk(2, dim=1)  # (B, k) each
    std = logvar.exp() if bug == "variance_as_std" else torch.exp(0.5 * logvar)
    z = mu if bug == "no_noise" else mu + std * eps
    x_hat, target = model.decoder(z, model.decoder_labels[y]).flatten(1), x.flatten(1)  # (B, D)
    if bug == "broadcast_error":
        error = (x_hat[:, None, :] - target).square().sum(dim=2).mean(dim=1)  # (B, 1, D) - (B, D) -> (B, B, D)
    else:
        error = (x_hat - target).square().sum(dim=1)
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1)
    if bug in ("half_kl", "double_kl"):
        kl = kl * {"half_kl": 0.5, "double_kl": 2}[bug]
    beta, x_var = config.beta.value, config.x_var.value
    assert x_var is not None
    if bug == "mean_error":
        error = F.mse_loss(x_hat, target, reduction="none").mean(dim=1)
        return error.mean() + beta * kl.mean(), error, kl
    if bug == "mean_kl":
        kl = kl / k
        return error.mean() + beta * kl.mean(), error, kl
    if config.objective.kind == "per_dim":
        return error.mean() / d + beta * kl.mean() / k, error, kl
    return error.mean() / (2 * x_var) + d / 2 * math.log(2 * math.pi * x_var) + beta * kl.mean(), error, kl


@pytest.mark.parametrize("objective", ["elbo", "per_dim"])
@pytest.mark.parametrize("bug", BUGS)
def test_loss_gradient_and_printed_values_are_those_of_the_code_with_the_bug(bug: str, objective: str):
    config = configured(bug, objective__kind=objective, x_var__value=0.3, beta__value=0.7)
    model = VAE(resolve(config, (1, 3, 4), 3, [])).train()
    x, y, eps = torch.rand(B, 1, 3, 4), torch.arange(B) % 3, torch.randn(B, model.arch.z_dim)
    loss, error, kl = as_written(bug, config, model, x, y, eps)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    own = objective_of(config, 100)
    assert isinstance(own, Buggy)
    noise = {"z": eps[None]}
    got = model(own, x, y, noise, torch.tensor([0.7, 0.5]))[0]
    assert got.item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(got, list(model.parameters())), expected, rtol=1e-4, atol=1e-5)
    terms = model.terms(x, y, model.noise_in_training(noise), torch.tensor(0.7), torch.tensor(0.5))
    torch.testing.assert_close(own.printed(terms), (error, kl))


def test_what_is_measured_is_the_distribution_that_z_is_drawn_from():
    """With `variance_as_std`, 10,000 draws as the code makes them have the moments of the posterior reported."""
    config = configured("variance_as_std")
    model = VAE(resolve(config, (1, 3, 4), 3, []))
    x, y = torch.rand(1, 1, 3, 4), torch.zeros(1, dtype=torch.int64)
    noise = torch.randn(10_000, 1, model.arch.z_dim)
    z = model.terms(x, y, {"z": noise}, torch.tensor(1.0), torch.tensor(1.0)).z[:, 0]  # (S, k)
    mu, logvar = model.encode(x, y)
    raw = model.encoder(x, model.encoder_labels[y]).chunk(2, dim=1)[1]
    torch.testing.assert_close(z.std(dim=0), (0.5 * logvar[0]).exp(), rtol=0.05, atol=0)
    torch.testing.assert_close((0.5 * logvar).exp(), raw.exp())
    torch.testing.assert_close(z.mean(dim=0), mu[0], rtol=0, atol=0.05)


def test_without_a_bug_the_objective_is_the_plain_one():
    assert not isinstance(objective_of(tiny_config(), 100), Buggy)
    assert KINDS.keys() == bugs.BUGS.keys() == set(BUGS)


def test_attributes_of_the_objective_are_kept():
    own = objective_of(configured("no_noise", objective__kind="iwae", objective__samples=4), 100)
    assert getattr(own, "samples", 1) == 4
    assert not getattr(own, "draws_prior", False)


@pytest.mark.parametrize("bug", [b for b in BUGS if b in BUGGY_OBJECTIVES])
def test_a_bug_that_an_objective_cannot_have_is_refused(bug: str):
    config = configured(bug, objective__kind="iwae", objective__samples=2)
    with pytest.raises(ConfigError, match=rf"bug={bug}: .* objective=iwae; allowed there: elbo, per_dim"):
        validate(config)


@pytest.mark.parametrize("bug", ["mean_error", "mean_kl", "broadcast_error"])
def test_a_bug_of_the_squared_error_needs_one(bug: str):
    config = configured(bug, likelihood__kind="bernoulli", likelihood__targets="pixels")
    with pytest.raises(ConfigError, match=f"bug={bug}: is about a squared error; allowed: likelihood=gaussian"):
        validate(config)


@pytest.fixture(scope="module")
def gaussian() -> ImageData:
    return make_data(n_train=1024, n_test=64, image_shape=(1, 4, 5), n_classes=3, seed=5)


# With mean_error t is D/2 = 10·beta, whatever x_var is.
LINEAR = [
    ("variance_as_std", "both", 0.01, 1.0),
    ("variance_as_std", "none", 0.01, 1.0),
    ("half_kl", "both", 0.01, 1.0),
    ("double_kl", "none", 0.01, 1.0),
    ("broadcast_error", "both", 0.01, 1.0),
    ("mean_kl", "none", 1.0, 0.1),
    ("mean_error", "both", 1.0, 0.001),
]


@pytest.mark.slow
@pytest.mark.parametrize(("bug", "placement", "x_var", "beta"), LINEAR)
def test_the_linear_model_trained_with_a_bug_lands_on_its_closed_form(
    gaussian: ImageData, bug: str, placement: str, x_var: float, beta: float
):
    """KL and SSE, reported and printed, within 1 %."""
    config = configured(
        bug, model__kind="linear", label_placement__kind=placement, x_var__value=x_var, beta__value=beta
    )
    config.model.hidden, config.model.activation = None, None
    config.trainer.epochs, config.trainer.batch_size = 1500, 256
    config.trainer.lr, config.trainer.lr_schedule = 0.1, "cosine"
    config.z_dim.value = 5
    stack = fit(new_stack(gaussian, config), gaussian)
    f = facts(gaussian)
    loss = {"t": beta * x_var, "z_dim": 5, "beta": beta, "batch_size": 256}
    expected = bugs.prediction(bug, f.eigenvalues, f.eigenvalues_within, placement, loss)[0]
    often = replace(gaussian, test_x=gaussian.train_x.repeat(20, 1, 1, 1), test_y=gaussian.train_y.repeat(20))
    got = errors(subject_of(stack, often), "test")
    assert got.kl == pytest.approx(expected.kl, rel=0.01, abs=0.01)
    assert got.sse == pytest.approx(expected.sse, rel=0.01)
    assert got.printed == pytest.approx((expected.printed_sse, expected.printed_kl), rel=0.01, abs=0.01)
