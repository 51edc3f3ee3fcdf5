"""A linear VAE written out in double precision, and images to train it on.

The loss is the exact expectation over z and all images at once, so that training reaches the optimum to many digits and
a disagreement is an error of the theory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from vae import theory

D, N, CLASSES = 6, 180, 3
EXACT = 1e-4  # relative, for training on the exact expectation; it reaches 1e-5


@dataclass(frozen=True)
class Data:
    x: np.ndarray  # (N, D)
    labels: np.ndarray  # (N,), as many images of each class

    @property
    def eigenvalues(self) -> np.ndarray:
        """(D,) descending, of the 1/N covariance."""
        return np.linalg.eigvalsh(np.cov(self.x.T, bias=True))[::-1]

    @property
    def eigenvalues_within(self) -> np.ndarray:
        """(D,) descending, of the pooled within-class 1/N covariance."""
        covs = [np.cov(self.x[self.labels == c].T, bias=True) for c in range(CLASSES)]
        return np.linalg.eigvalsh(np.mean(covs, axis=0))[::-1]


def make_data(seed: int, class_spread: float = 0.6) -> Data:
    """Images of a random spectrum over about two decades, in random directions, around random class means.

    Neighbouring eigenvalues of the within-class covariance differ by a factor of at least 1.5: near t = l_i the loss is
    so flat that no training could tell.
    """
    rng = np.random.default_rng(seed)
    spectrum = rng.uniform(2, 5) / np.cumprod(rng.uniform(1.5, 2.5, D))
    labels = np.repeat(np.arange(CLASSES), N // CLASSES)
    noise = rng.standard_normal((N, D))
    for c in range(CLASSES):
        noise[labels == c] -= noise[labels == c].mean(0)
    white = noise @ np.linalg.inv(np.linalg.cholesky(noise.T @ noise / N)).T
    rotation = np.linalg.qr(rng.standard_normal((D, D)))[0]
    means = 0.5 + class_spread * rng.standard_normal((CLASSES, D))
    return Data(white * np.sqrt(spectrum) @ rotation + means[labels], labels)


def between(eigenvalues: np.ndarray, q: int) -> float:
    """A t that has q eigenvalues above it, none of them near."""
    padded = np.concatenate([[eigenvalues[0] * 4], eigenvalues, [eigenvalues[-1] / 4]])
    assert padded[q] / padded[q + 1] > 1.15, "choose another q or seed: t would be close to an eigenvalue"
    return math.sqrt(padded[q] * padded[q + 1])


class LinearVAE(torch.nn.Module):
    """x_hat = W z + b (+ B y); mu = V x + a (+ A y), or an MLP of both; one diagonal posterior variance for all."""

    def __init__(self, data: Data, z_dim: int, label_placement: str = "none", hidden: int = 0, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        onehot = np.eye(CLASSES)[data.labels]
        self.x = torch.tensor(data.x)  # (N, D)
        self.seen = torch.tensor(np.hstack([data.x, onehot]) if label_placement in ("both", "encoder") else data.x)
        self.told = torch.tensor(onehot if label_placement in ("both", "decoder") else np.ones((len(onehot), 1)))
        inputs = self.seen.shape[1]
        net: list[torch.nn.Module] = [torch.nn.Linear(hidden or inputs, z_dim)]
        if hidden:
            net = [torch.nn.Linear(inputs, hidden), torch.nn.LeakyReLU(0.5), *net]
        self.encoder = torch.nn.Sequential(*net).double()
        self.loadings = torch.nn.Parameter(
            torch.randn(self.x.shape[1], z_dim).double() * 0.3
        )  # W (D, k): 0 is a saddle
        self.offsets = torch.nn.Parameter(torch.zeros(self.told.shape[1], self.x.shape[1]).double())
        self.log_var = torch.nn.Parameter(torch.zeros(z_dim).double())
        self.log_x_var = torch.nn.Parameter(torch.zeros(()).double())

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.loadings.T + self.told @ self.offsets  # (..., N, k) -> (..., N, D)

    def kl_per_dim(self) -> torch.Tensor:
        mu, log_var = self.encoder(self.seen), self.log_var
        return 0.5 * (mu.square() + log_var.exp() - log_var - 1).mean(0)  # (k,)

    def sse_mean(self) -> torch.Tensor:
        return (self.x - self.decode(self.encoder(self.seen))).square().sum(1).mean()

    def sse(self) -> torch.Tensor:
        """The expectation over z: the noise of dimension j adds its variance times |w_j|²."""
        return self.sse_mean() + (self.log_var.exp() * self.loadings.square().sum(0)).sum()

    def sse_sampled(self, draws: int) -> torch.Tensor:
        mu = self.encoder(self.seen)
        z = mu + (self.log_var / 2).exp() * torch.randn(draws, *mu.shape, dtype=mu.dtype)
        return (self.x - self.decode(z)).square().sum(-1).mean()

    def loss(self, beta: float, sse: torch.Tensor | None = None) -> torch.Tensor:
        sse = self.sse() if sse is None else sse
        x_var, dim = self.log_x_var.exp(), self.x.shape[1]
        return sse / (2 * x_var) + dim / 2 * (math.log(2 * math.pi) + self.log_x_var) + beta * self.kl_per_dim().sum()


def train(model: LinearVAE, x_var: float, beta: float = 1.0, learn_x_var: bool = False) -> LinearVAE:
    """To convergence, by BFGS on the exact loss: few enough parameters for the full inverse Hessian."""
    with torch.no_grad():
        model.log_x_var.fill_(math.log(x_var))
    model.log_x_var.requires_grad_(learn_x_var)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        torch.nn.utils.vector_to_parameters(torch.tensor(flat), parameters)
        loss = model.loss(beta)
        return loss.item(), torch.cat([g.ravel() for g in torch.autograd.grad(loss, parameters)]).numpy()

    start = torch.nn.utils.parameters_to_vector(parameters).detach().numpy()
    end = minimize(loss_and_gradient, start, method="BFGS", jac=True, options={"gtol": 1e-6, "maxiter": 2000})
    loss_and_gradient(end.x)
    return model.requires_grad_(False)


def assert_agrees(model: LinearVAE, best: theory.Optimum, tolerance: float = EXACT) -> None:
    kl_per_dim = np.sort(model.kl_per_dim().numpy())[::-1]
    assert best.kl_per_dim == pytest.approx(kl_per_dim, rel=tolerance, abs=tolerance)
    assert best.kl == pytest.approx(kl_per_dim.sum(), rel=tolerance, abs=1e-6)
    assert best.sse == pytest.approx(model.sse().item(), rel=tolerance)
    assert best.sse_mean == pytest.approx(model.sse_mean().item(), rel=tolerance)
    assert best.active_units == (kl_per_dim > 0.01).sum()
