"""The losses against torch.distributions, finite differences and hand calculation."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.conftest import tiny_config
from vae import objective
from vae.config import Beta

torch.manual_seed(0)
MU, LOGVAR = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
X, X_HAT = torch.rand(2, 5, 12, dtype=torch.float64), torch.rand(2, 5, 12, dtype=torch.float64)
ELBO = torch.tensor([False, False])


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_kl_is_that_of_torch_distributions():
    q, p = Normal(MU, (0.5 * LOGVAR).exp()), Normal(torch.zeros_like(MU), 1.0)
    torch.testing.assert_close(objective.gaussian_kl(MU, LOGVAR), kl_divergence(q, p))


def test_elbo_loss_is_the_negative_log_likelihood_of_torch_distributions_plus_kl():
    x_var = tensor(0.1, 0.7)
    log_p = Normal(X_HAT, x_var.sqrt()[:, None, None]).log_prob(X).sum(-1).mean(1)
    q, p = Normal(MU, (0.5 * LOGVAR).exp()), Normal(torch.zeros_like(MU), 1.0)
    kl = kl_divergence(q, p).sum(-1).mean(1)
    sse = objective.squared_error(X, X_HAT).mean(1)
    got = objective.loss(sse, kl, tensor(1.0, 2.5), objective.weights(x_var.log(), ELBO, 12, 3))
    torch.testing.assert_close(got, -log_p + tensor(1.0, 2.5) * kl)


def test_per_dim_loss_by_hand():
    got = objective.loss(
        tensor(24.0), tensor(6.0), tensor(0.5), objective.weights(tensor(0.3), torch.tensor([True]), 12, 3)
    )
    assert got.item() == pytest.approx(24 / 12 + 0.5 * 6 / 3)


@pytest.mark.parametrize("per_dim", [False, True])
def test_gradients_by_finite_differences(per_dim: bool):
    flags = torch.tensor([per_dim, per_dim])

    def total(mu: torch.Tensor, logvar: torch.Tensor, x_hat: torch.Tensor, log_x_var: torch.Tensor) -> torch.Tensor:
        sse = objective.squared_error(X, x_hat).mean(1)
        kl = objective.gaussian_kl(mu, logvar).sum(-1).mean(1)
        return objective.loss(sse, kl, tensor(0.5, 2.0), objective.weights(log_x_var, flags, 12, 3)).sum()

    inputs = [t.clone().requires_grad_() for t in (MU, LOGVAR, X_HAT, tensor(-1.0, 0.2))]
    assert torch.autograd.gradcheck(total, inputs)


@pytest.mark.parametrize(("x_var", "beta"), [(0.01, 1.0), (0.1, 4.0), (2.0, 0.3)])
def test_elbo_at_x_var_and_beta_has_the_gradient_of_elbo_at_one_and_their_product(x_var: float, beta: float):
    def gradient(log_x_var: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        mu, logvar, x_hat = (t.clone().requires_grad_() for t in (MU, LOGVAR, X_HAT))
        sse = objective.squared_error(X, x_hat).mean(1)
        kl = objective.gaussian_kl(mu, logvar).sum(-1).mean(1)
        objective.loss(sse, kl, weight, objective.weights(log_x_var, ELBO, 12, 3)).sum().backward()
        return torch.cat([t.grad.flatten() for t in (mu, logvar, x_hat) if t.grad is not None])

    both = gradient(tensor(x_var, x_var).log(), tensor(beta, beta))
    product = gradient(tensor(1.0, 1.0).log(), tensor(beta * x_var, beta * x_var))
    torch.testing.assert_close(both * x_var, product)


def test_effective_x_var_of_both_objectives():
    elbo = tiny_config(x_var__value=0.01, beta__value=4.0)
    assert objective.effective_x_var(elbo, 0.01, 784, 20) == pytest.approx(0.04)
    per_dim = tiny_config(objective__kind="per_dim", beta__value=0.1)
    assert objective.effective_x_var(per_dim, 0.1, 3072, 100) == pytest.approx(0.1 * 3072 / 200)


def test_beta_schedules_by_hand():
    constant = objective.beta_schedule(Beta(value=0.5), epochs=2, steps_per_epoch=2)
    assert constant.tolist() == [0.5] * 4
    warmup = objective.beta_schedule(Beta("warmup", 2.0, epochs=2.0), epochs=4, steps_per_epoch=2)
    assert warmup.tolist() == [0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    cyclical = objective.beta_schedule(Beta("cyclical", 1.0, cycles=2, ramp=0.5), epochs=4, steps_per_epoch=2)
    np.testing.assert_allclose(cyclical, [0, 0.5, 1, 1, 0, 0.5, 1, 1])


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        objective.squared_error(torch.zeros(4, 12), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="differ in shape"):
        objective.squared_error(torch.zeros(4, 12), torch.zeros(12))
    with pytest.raises(ValueError, match="differ in shape"):
        objective.gaussian_kl(torch.zeros(4, 3), torch.zeros(1, 3))
