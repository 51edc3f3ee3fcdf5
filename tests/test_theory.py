"""The closed form against references that do not use it: trained linear VAEs, explicit densities, real MNIST.

The VAEs are written out here, in double precision, with the exact expectation of the loss over z and all images at
once, so that training reaches the optimum to many digits and a disagreement is an error of the theory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from vae import linear_theory as theory

D, N, CLASSES = 6, 180, 3
SEEDS = [0, 1, 2]
EXACT = 1e-4  # relative, for training on the exact expectation; it reaches 1e-5
SAMPLED = 1e-2  # relative, for training with sampled z


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These matrices are small: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------------------------------------------------------------
# data


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


# ---------------------------------------------------------------------------------------------------------------------
# a VAE with a linear decoder


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


# ---------------------------------------------------------------------------------------------------------------------
# the optimum


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("q", "z_dim", "beta"),
    [
        pytest.param(3, 5, 1.0, id="collapsed-units-left"),
        pytest.param(3, 5, 0.1, id="same-t-by-small-beta"),
        pytest.param(3, 5, 4.0, id="same-t-by-large-beta"),
        pytest.param(4, 2, 1.0, id="too-few-units"),
        pytest.param(4, 9, 1.0, id="more-units-than-pixels"),
        pytest.param(6, 6, 1.0, id="all-active"),
    ],
)
def test_trained_vae_lands_on_the_optimum(seed: int, q: int, z_dim: int, beta: float) -> None:
    data = make_data(seed, class_spread=0)
    t = between(data.eigenvalues, q)
    model = train(LinearVAE(data, z_dim, seed=seed), x_var=t / beta, beta=beta)
    best = theory.optimum(data.eigenvalues, t, z_dim)
    assert best.active_units == min(q, z_dim)
    assert_agrees(model, best)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("label_placement", ["both", "encoder", "none"])
def test_trained_conditional_vae_lands_on_its_prediction(seed: int, label_placement: str) -> None:
    data = make_data(seed)
    seen = data.eigenvalues_within if label_placement == "both" else data.eigenvalues
    t = between(seen, 3)
    model = train(LinearVAE(data, 5, label_placement, seed=seed), x_var=t)
    lower, upper = theory.prediction(data.eigenvalues, data.eigenvalues_within, label_placement, t, 5)
    assert lower is upper
    assert_agrees(model, lower)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("q", [2, 4])
def test_label_in_the_decoder_alone_has_a_loss_strictly_between(seed: int, q: int) -> None:
    data = make_data(seed)
    t = between(data.eigenvalues_within, q)
    model = train(LinearVAE(data, 6, "decoder", seed=seed), x_var=t)
    within, unconditional = theory.prediction(data.eigenvalues, data.eigenvalues_within, "decoder", t, 6)
    kl, sse = model.kl_per_dim().sum().item(), model.sse().item()
    loss = sse + 2 * t * kl
    assert within.sse + 2 * t * within.kl < loss < unconditional.sse + 2 * t * unconditional.kl
    # In the rate-distortion plane: above every tangent of the within-class curve, below the unconditional curve.
    ts = np.geomspace(t / 1e3, t * 1e3, 20_001)
    kl_within, sse_within = theory.curve(data.eigenvalues_within, ts, 6)
    assert np.all(sse + 2 * ts * kl > sse_within + 2 * ts * kl_within)
    kl_whole, sse_whole = theory.curve(data.eigenvalues, ts, 6)
    assert sse < np.interp(kl, kl_whole[::-1], sse_whole[::-1])


def test_label_in_the_decoder_alone_can_have_kl_and_sse_outside() -> None:
    """One pixel, variance 2 within classes and 20/3 more between: to code it costs more KL than it is worth, though the
    pixel is active in both of the cases that bracket it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), N // CLASSES)
    noise = rng.standard_normal((N // CLASSES, 1))
    noise = np.tile((noise - noise.mean()) / noise.std() * math.sqrt(2), (CLASSES, 1))
    x = noise + np.array([-math.sqrt(10), 0, math.sqrt(10)])[labels][:, None]
    within, unconditional = theory.prediction([2 + 20 / 3], [2], "decoder", 1.0, 1)
    model = train(LinearVAE(Data(x, labels), 1, "decoder"), x_var=1.0)
    assert model.kl_per_dim().sum().item() == pytest.approx(0, abs=1e-6)
    assert model.sse().item() == pytest.approx(2, rel=EXACT)
    assert 0 < within.kl < unconditional.kl
    assert within.sse == unconditional.sse == 1
    assert within.sse + 2 * within.kl < 2 < unconditional.sse + 2 * unconditional.kl


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_mlp_encoder_before_a_linear_decoder_lands_there_too(seed: int) -> None:
    data = make_data(seed, class_spread=0)
    t = between(data.eigenvalues, 3)
    model = train(LinearVAE(data, 4, hidden=12, seed=seed), x_var=t)
    assert_agrees(model, theory.optimum(data.eigenvalues, t, 4), tolerance=1e-3)
    assert -model.loss(1.0).item() <= theory.elbo(data.eigenvalues, t, 4) + 1e-9, "nothing beats the closed form"


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_training_with_sampled_z_lands_there(seed: int) -> None:
    data = make_data(seed, class_spread=0)
    t = between(data.eigenvalues, 3)
    model = LinearVAE(data, 4, seed=seed)
    with torch.no_grad():
        model.log_x_var.fill_(math.log(t))
    model.log_x_var.requires_grad_(False)
    steps = 1500
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(1.0, model.sse_sampled(draws=8)).backward()
        optimizer.step()
        schedule.step()
    model.requires_grad_(False)
    best = theory.optimum(data.eigenvalues, t, 4)
    # Totals only: which dimension holds how much of them is the last thing that noisy training settles.
    assert best.kl == pytest.approx(model.kl_per_dim().sum().item(), rel=SAMPLED)
    assert best.sse == pytest.approx(model.sse_sampled(draws=2000).item(), rel=SAMPLED)
    assert best.sse_mean == pytest.approx(model.sse_mean().item(), rel=SAMPLED)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_collapse_from_the_critical_x_var_on(seed: int, factor: float) -> None:
    data = make_data(seed, class_spread=0)
    critical = theory.critical_x_var(data.eigenvalues)
    best = theory.optimum(data.eigenvalues, critical * factor, 4)
    total = data.x.var(0).sum()
    assert (best.kl, best.active_units) == (0.0, 0)
    assert [best.sse, best.sse_mean] == pytest.approx([total, total])
    assert theory.optimum(data.eigenvalues, critical * 0.999, 4).active_units == 1
    if factor > 1:  # at the critical value itself training takes for ever
        assert_agrees(train(LinearVAE(data, 4, seed=seed), x_var=critical * factor), best)


def test_by_hand() -> None:
    best = theory.optimum([0.5, 4.0, 1.0, 2.0], t=1.0, z_dim=3)  # any order; l = t is not active
    assert best.kl_per_dim == pytest.approx([0.5 * math.log(4), 0.5 * math.log(2), 0.0])
    assert best.kl == pytest.approx(0.5 * math.log(8))
    assert best.sse == 1 + 1 + 1 + 0.5
    assert best.sse_mean == 1 / 4 + 1 / 2 + 1 + 0.5
    assert best.active_units == 2
    assert theory.critical_x_var([0.5, 4.0, 1.0, 2.0]) == 4


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("z_dim", [1, 4, 12])
def test_curve_is_the_optimum_at_each_t(seed: int, z_dim: int) -> None:
    eigenvalues = make_data(seed).eigenvalues
    ts = np.geomspace(1e-3, 10, 40).reshape(8, 5)
    kl, sse = theory.curve(eigenvalues, ts, z_dim)
    points = [theory.optimum(eigenvalues, t, z_dim) for t in ts.flat]
    assert kl.shape == sse.shape == ts.shape
    assert kl.ravel() == pytest.approx([p.kl for p in points])
    assert sse.ravel() == pytest.approx([p.sse for p in points])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("z_dim", [1, 4, 12])
def test_distortion_is_the_sse_of_the_optimum_of_that_kl(seed: int, z_dim: int) -> None:
    eigenvalues = make_data(seed).eigenvalues
    for t in [*np.geomspace(1e-9, 10, 40), *eigenvalues]:
        point = theory.optimum(eigenvalues, t, z_dim)
        assert theory.distortion(eigenvalues, point.kl, z_dim) == pytest.approx(point.sse, rel=1e-9)


def test_distortion_by_hand() -> None:
    assert theory.distortion([4.0, 1.0, 0.25], 0.5 * math.log(4), 2) == pytest.approx(1 + 1 + 0.25)  # t = 1
    assert theory.distortion([4.0, 1.0, 0.25], 0.5 * math.log(16), 2) == pytest.approx(0.5 + 0.5 + 0.25)  # t = 1/2
    assert theory.distortion([4.0, 1.0, 0.25], 0.5 * math.log(16), 1) == pytest.approx(0.25 + 1 + 0.25)  # t = 1/4
    assert theory.distortion([1.0, 4.0, 0.25], 0.0, 2) == pytest.approx(5.25)
    assert theory.distortion([2.0, 0.0, 0.0], 0.5 * math.log(2), 3) == pytest.approx(1.0)
    assert theory.distortion([0.0, 0.0], 1.0, 2) == 0.0


@pytest.mark.parametrize("kl", [-0.1, math.nan, math.inf])
def test_distortion_at_no_kl_is_refused(kl: float) -> None:
    with pytest.raises(ValueError, match="kl="):
        theory.distortion([1.0], kl, 1)


# ---------------------------------------------------------------------------------------------------------------------
# learned x_var


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("z_dim", "beta"), [(3, 1.0), (3, 0.3), (5, 2.5)])
def test_learned_x_var_is_what_training_finds(seed: int, z_dim: int, beta: float) -> None:
    data = make_data(seed)
    x_var = theory.learned_x_var(data.eigenvalues, z_dim, D, beta)
    model = train(LinearVAE(data, z_dim, seed=seed), x_var=0.5, beta=beta, learn_x_var=True)
    assert x_var == pytest.approx(model.log_x_var.exp().item(), rel=EXACT)
    assert_agrees(model, theory.optimum(data.eigenvalues, beta * x_var, z_dim))

    fixed = train(LinearVAE(data, z_dim, seed=seed), x_var=x_var, beta=beta)
    fixed.log_x_var.requires_grad_(True)
    fixed.loss(beta).backward()
    assert fixed.log_x_var.grad is not None
    assert fixed.log_x_var.grad.item() == pytest.approx(0, abs=EXACT * D / 2)  # D/2 is the size of its two terms


@pytest.mark.parametrize("seed", range(30))
def test_learned_x_var_is_the_global_optimum_and_agrees_with_its_own_activity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    eigenvalues = np.sort(rng.lognormal(0, 2, D))[::-1]
    z_dim, beta = int(rng.integers(1, D)), float(rng.choice([0.1, 1.0, 1.5, 8.0]))
    x_var = theory.learned_x_var(eigenvalues, z_dim, D, beta)
    best = theory.elbo(eigenvalues, x_var, z_dim, beta)
    for other in x_var * np.geomspace(1e-3, 1e3, 601):
        assert theory.elbo(eigenvalues, other, z_dim, beta) <= best + 1e-9
    q = theory.optimum(eigenvalues, beta * x_var, z_dim).active_units
    assert x_var == pytest.approx(eigenvalues[q:].sum() / (D - q * beta))


def test_learned_x_var_at_the_limits() -> None:
    assert theory.learned_x_var([4, 3, 2, 1], z_dim=2, input_dim=4) == pytest.approx((2 + 1) / 2)
    assert theory.learned_x_var([4, 3, 2, 1], z_dim=2, input_dim=10) == pytest.approx((2 + 1) / 8)  # six null pixels
    assert theory.learned_x_var([4, 3], z_dim=2, input_dim=10) == 0  # all variance coded: unbounded likelihood
    assert theory.learned_x_var([0, 0], z_dim=1, input_dim=2) == 0
    assert theory.learned_x_var([4, 3, 2, 1], z_dim=4, input_dim=4) == 1  # flat up to the last eigenvalue
    assert theory.elbo([4, 3, 2, 1], 1.0, 4) == pytest.approx(theory.elbo([4, 3, 2, 1], 0.01, 4))
    assert theory.learned_x_var([4, 3, 2, 1], z_dim=4, input_dim=4, beta=100) == pytest.approx(10 / 4)  # collapsed


# ---------------------------------------------------------------------------------------------------------------------
# likelihood


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("z_dim", [1, 3, 6, 9])
@pytest.mark.parametrize("x_var", [0.02, 0.3, 3.0])
def test_log_likelihood_is_that_of_the_explicit_gaussian(seed: int, z_dim: int, x_var: float) -> None:
    x = make_data(seed).x
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    top = slice(max(D - z_dim, 0), None)
    loadings = vectors[:, top] * np.sqrt(np.maximum(values[top] - x_var, 0))
    covariance = loadings @ loadings.T + x_var * np.eye(D)
    reference = multivariate_normal.logpdf(x, mean=x.mean(0), cov=covariance).mean()  # pyright: ignore[reportArgumentType]
    assert theory.log_likelihood(values, x_var, z_dim) == pytest.approx(reference, rel=1e-9)
    assert theory.log_likelihood(values, x_var, z_dim) == pytest.approx(theory.elbo(values, x_var, z_dim), rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_elbo_of_a_trained_vae_is_the_exact_likelihood(seed: int) -> None:
    """Three ways to one number: the trained loss, the density of the trained decoder, the closed form."""
    data, z_dim = make_data(seed, class_spread=0), 4
    x_var = between(data.eigenvalues, 2)
    model = train(LinearVAE(data, z_dim, seed=seed), x_var=x_var)
    loadings = model.loadings.numpy()
    density = torch.distributions.MultivariateNormal(
        model.offsets[0], torch.tensor(loadings @ loadings.T + x_var * np.eye(D))
    )
    closed = theory.log_likelihood(data.eigenvalues, x_var, z_dim)
    assert closed == pytest.approx(-model.loss(1.0).item(), rel=1e-6)
    assert closed == pytest.approx(density.log_prob(model.x).mean().item(), rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.2, 3.0])
def test_elbo_at_another_beta_is_minus_the_trained_loss(seed: int, beta: float) -> None:
    data = make_data(seed)
    x_var = between(data.eigenvalues, 3) / beta
    model = train(LinearVAE(data, 5, seed=seed), x_var=x_var, beta=beta)
    assert theory.elbo(data.eigenvalues, x_var, 5, beta) == pytest.approx(-model.loss(beta).item(), rel=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# errors


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_variance_or_beta_that_is_not_positive_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"^t=.*finite and > 0"):
        theory.optimum([1.0], bad, 1)
    with pytest.raises(ValueError, match=r"^ts=.*finite and > 0"):
        theory.curve([1.0], [1.0, bad], 1)
    with pytest.raises(ValueError, match=r"^x_var=.*finite and > 0"):
        theory.log_likelihood([1.0], bad, 1)
    with pytest.raises(ValueError, match=r"^x_var=.*finite and > 0"):
        theory.elbo([1.0], bad, 1)
    with pytest.raises(ValueError, match=r"^beta=.*finite and > 0"):
        theory.elbo([1.0], 1.0, 1, beta=bad)
    with pytest.raises(ValueError, match=r"^beta=.*finite and > 0"):
        theory.learned_x_var([1.0], 1, 1, beta=bad)


@pytest.mark.parametrize("bad", [[], [1.0, -0.1], [-1.0], [1.0, math.nan], [math.inf], [[1.0]], 1.0])
def test_no_spectrum_is_refused(bad: list) -> None:
    calls = [
        lambda: theory.optimum(bad, 1.0, 1),
        lambda: theory.curve(bad, [1.0], 1),
        lambda: theory.critical_x_var(bad),
        lambda: theory.learned_x_var(bad, 1, 2),
        lambda: theory.log_likelihood(bad, 1.0, 1),
        lambda: theory.elbo(bad, 1.0, 1),
        lambda: theory.prediction(bad, [1.0], "none", 1.0, 1),
        lambda: theory.prediction([1.0], bad, "both", 1.0, 1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="eigenvalues"):
            call()


def test_other_bad_arguments_are_refused() -> None:
    calls = [
        lambda: theory.optimum([1.0], 1.0, 0),
        lambda: theory.curve([1.0], [1.0], 0),
        lambda: theory.learned_x_var([1.0], 0, 1),
        lambda: theory.log_likelihood([1.0], 1.0, 0),
        lambda: theory.elbo([1.0], 1.0, 0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="z_dim=0"):
            call()
    with pytest.raises(ValueError, match="input_dim=1"):
        theory.learned_x_var([2.0, 1.0], 1, 1)
    with pytest.raises(ValueError, match="label_placement=decoders"):
        theory.prediction([1.0], [1.0], "decoders", 1.0, 1)


def test_negative_by_rounding_counts_as_zero() -> None:
    best = theory.optimum([2.0, -1e-8, 0.0], 1e-3, 3)
    assert best.active_units == 1
    assert best.sse == 1e-3
    assert np.isfinite(theory.log_likelihood([2.0, -1e-8], 0.1, 2))


# ---------------------------------------------------------------------------------------------------------------------
# real MNIST


def read_idx(path: Path) -> np.ndarray:
    """An idx file: two zero bytes, type, number of axes, big-endian sizes, then unsigned bytes."""
    raw = path.read_bytes()
    axes = raw[3]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(raw, ">i4", axes, offset=4))


@pytest.fixture(scope="module")
def mnist() -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues of the whole and of the within-class covariance of the training images, and the mean of |x|²."""
    root = os.environ.get("VAE_MNIST_ROOT")
    if root is None:
        pytest.skip("VAE_MNIST_ROOT is not set: the folder that holds MNIST/raw/train-images-idx3-ubyte")
    folder = Path(root) / "MNIST" / "raw"
    labels = read_idx(folder / "train-labels-idx1-ubyte")
    x = read_idx(folder / "train-images-idx3-ubyte").reshape(len(labels), -1).astype(np.float32) / 255
    second = np.sum([part.T @ part for part in np.array_split(x, 10)], axis=0, dtype=np.float64) / len(x)  # (784, 784)
    mean = x.mean(0, dtype=np.float64)
    class_means = np.array([x[labels == c].mean(0, dtype=np.float64) for c in range(10)])
    shares = np.bincount(labels) / len(labels)
    whole = np.linalg.eigvalsh(second - np.outer(mean, mean))
    within = np.linalg.eigvalsh(second - (class_means.T * shares) @ class_means)
    return whole, within, float(np.trace(second))


@pytest.mark.parametrize(
    ("label_placement", "t", "kl", "sse"),
    [
        ("both", 1, 2.2, 35.2),
        ("both", 0.1, 41.4, 13.6),
        ("both", 0.01, 151.1, 5.5),
        ("none", 1, 4.3, 36.8),
        ("none", 0.1, 45.1, 13.6),
        ("none", 0.01, 154.9, 5.5),
    ],
)
def test_mnist_anchors(mnist: tuple, label_placement: str, t: float, kl: float, sse: float) -> None:
    whole, within, _ = mnist
    best, _ = theory.prediction(whole, within, label_placement, t, 100)
    assert (round(best.kl, 1), round(best.sse, 1)) == (kl, sse)


def test_mnist_baselines_and_critical_x_var(mnist: tuple) -> None:
    whole, within, zero_image = mnist
    assert round(zero_image, 1) == 87.8
    for eigenvalues, baseline, critical in ((whole, 52.7, 5.1), (within, 41.8, 3.1)):
        assert round(theory.optimum(eigenvalues, 10, 100).sse, 1) == baseline
        assert round(theory.critical_x_var(eigenvalues), 1) == critical
