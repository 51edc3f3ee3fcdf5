"""Where a run's posteriors lie: what they tell about the image, and how they fill the prior.

Over the held-out images n = 1..M let q(z) = (1/M)·sum of q(z|x_n, y_n), the aggregate posterior. The mean KL, the term
that training pays for, splits exactly (Hoffman and Johnson 2016, "ELBO surgery"):

    KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)),

what z tells about which image it was, and how all the posteriors together differ from the prior. Collapse is
I(x; z) = 0. The hole is KL(q(z) || p(z)) >> 0: samples z ~ p(z) then fall where the decoder was never trained.

M images cannot show more than I(x; z) = ln M. Where KL > ln M, the rest lands in the second term, whether the model is
good or bad. So, up to Monte-Carlo noise, `mutual_information` is a lower bound on that of the whole data distribution
(Poole et al. 2019) and `aggregate_kl` an upper one. A lower bound is `aggregate_gaussian_kl`, the KL of the Gaussian
N(m, S) with the moments of q(z). It has no ceiling, and KL(q(z) || p(z)) = KL(q(z) || N(m, S)) + KL(N(m, S) || p(z))
holds exactly, since ln N(m, S)/p is quadratic in z and so has the same mean under both.

Conditional VAEs: the prior N(0, I) is the same for every class, so q(z) is that of all classes together. Each posterior
sees the label of its own image where the encoder takes it. The posteriors of one class may still miss the prior where
q(z) does not. (The same estimate for each class would not show it: narrow posteriors never overlap, within a class or
across classes.)

All in nats. Pixels in [0, 1].
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vae.metrics.registry import Family, Metric, Subject, shared

if TYPE_CHECKING:
    from torch import Tensor

    from vae.priors import Prior

MAX_IMAGES = 2000  # M, at most: time grows with its square, and the ceiling only with its logarithm
CANCELS = 1e11  # z²/var; above it, 16 digits leave fewer than 5 after the decimal point
CHUNK = 500  # images encoded, and rows of the matrix of log densities, at a time: 500 x 2000 float64 are 8 MB

posterior = Family("posterior", version=3)


@dataclass(frozen=True, eq=False)
class Posteriors:
    """Posteriors of M held-out images, with one noise vector for each.

    Attributes:
        index: of the images, (M,).
        mu, logvar: (M, k) float64 each.
        eps: standard normal, (M, k) float64.
        state: of the generator after it drew eps.
    """

    index: Tensor
    mu: Tensor
    logvar: Tensor
    eps: Tensor
    state: Tensor


@shared
def posteriors(subject: Subject) -> Posteriors:
    """The posteriors of at most MAX_IMAGES held-out images, the same images for every run."""
    import torch

    from vae.seeding import generator

    # Not the first ones: a folder of pictures comes sorted by class.
    index = torch.randperm(len(subject.data.test_x), generator=generator(0, "diagnose images"))[:MAX_IMAGES]  # (M,)
    mu, logvar = encoded(subject, "test", index)  # (M, k) each
    noise = generator(subject.config.seed, "diagnose")
    eps = torch.randn(mu.shape, generator=noise).double()  # (M, k)
    return Posteriors(index, mu, logvar, eps, noise.get_state())


def encoded(subject: Subject, split: str, index: Tensor) -> tuple[Tensor, Tensor]:
    """mu and logvar of some images of a split: indices (M,) -> (M, k) float64 each."""
    import torch

    images, labels = subject.images(split)
    parts = [subject.model.encode(images[i], labels[i]) for i in index.split(CHUNK)]
    mu, logvar = (torch.cat(part).double() for part in zip(*parts, strict=True))
    return mu, logvar


@posterior.computes(
    Metric(
        "test_mutual_information",
        "nats",
        "I(x; z), the information of z about its image, on M held-out images, at most 2,000 (Hoffman and Johnson 2016)",
        "",
        "I(x; z) (nats)",
    ),
    Metric(
        "test_mutual_information_ceiling", "nats", "ln M, the largest value that M images can give", "", "ln M (nats)"
    ),
    Metric(
        "test_aggregate_kl",
        "nats",
        "mean KL of these M images minus I(x; z): up to noise, an upper bound on KL(q(z) || p(z)), where q(z) is the "
        "aggregate posterior",
        "lower",
        "KL(q(z) || p(z)), upper bound (nats)",
    ),
)
def information(subject: Subject) -> dict[str, float]:
    found = posteriors(subject)
    return decomposition(found.mu, found.logvar, found.eps, subject.model.module.prior)


@posterior.computes(
    Metric(
        "test_aggregate_gaussian_kl",
        "nats",
        "KL from the Gaussian with the mean and covariance of q(z) to N(0, I): a lower bound on KL(q(z) || p(z)); null "
        "for another prior",
        "lower",
        "Gaussian part of KL(q(z) || p(z)) (nats)",
    ),
    Metric("test_aggregate_mean_norm", "", "length of the mean of z under q(z)", "lower", "|E z|"),
    Metric("test_aggregate_variance_min", "", "smallest variance of a dimension under q(z)", "", "smallest Var z"),
    Metric("test_aggregate_variance_mean", "", "mean variance of a dimension under q(z)", "", "mean Var z"),
    Metric("test_aggregate_variance_max", "", "largest variance of a dimension under q(z)", "", "largest Var z"),
)
def aggregate(subject: Subject) -> dict[str, float]:
    from vae.priors import Standard

    found = posteriors(subject)
    values = moments(found.mu, found.logvar)
    if not isinstance(subject.model.module.prior, Standard):
        del values["test_aggregate_gaussian_kl"]
    return values


@posterior.computes(
    Metric(
        "test_encoder_dead_units",
        "",
        "share of the encoder's hidden ReLU units that are 0 for all images; null if it has no ReLU",
        "lower",
        "dead units, encoder",
    ),
    Metric(
        "test_decoder_dead_units",
        "",
        "share of the decoder's hidden ReLU units that are 0 for all images, z = mu; null if it has no ReLU",
        "lower",
        "dead units, decoder",
    ),
)
def dead_units(subject: Subject) -> dict[str, float | None]:
    """Hidden units that are 0 for every image: dead ReLUs, which no gradient revives.

    Convolutions are not counted.
    """
    import torch
    from torch import nn

    built, network = subject.model.arch.network, subject.model.module
    if built["kind"] != "mlp" or built["activation"] != "relu":
        return {"test_encoder_dead_units": None, "test_decoder_dead_units": None}
    values: dict[str, float | None] = {}
    images, labels = subject.images("test")
    index = posteriors(subject).index
    for name in ("encoder", "decoder"):
        alive: list[Tensor] = []  # for each hidden layer which units are above 0 for some image, (width,)
        layers = getattr(network, name).net.layers
        assert isinstance(layers, nn.ModuleList)
        note = functools.partial(_note_alive, alive)
        hooks = [layer.register_forward_hook(note) for layer in list(layers)[:-1]]
        subject.model.reconstruct(images[index], labels[index])
        for hook in hooks:
            hook.remove()
        values[f"test_{name}_dead_units"] = (~torch.cat(alive)).double().mean().item()
    return values


def _note_alive(alive: list[Tensor], layer: Any, inputs: Any, out: Tensor) -> None:
    alive.append((out > 0).flatten(0, -2).any(dim=0))  # (..., width) -> (width,)


def decomposition(mu: Tensor, logvar: Tensor, eps: Tensor, prior: Prior) -> dict[str, float]:
    """The KL as mutual information and KL(q(z) || p(z)), with one z = mu + sigma·eps per image.

    Args:
        mu, logvar: of the M posteriors, (M, k) float64 each.
        eps: standard normal noise, (M, k).
        prior: of the model.

    Returns:
        test_mutual_information: I(x; z), the mean of ln q(z_n|x_n) - ln q(z_n). Noise: a few hundredths at M = 1000.
        test_mutual_information_ceiling: ln M.
        test_aggregate_kl: the mean KL less the mutual information.
    """
    n_images = len(mu)
    z = mu + (0.5 * logvar).exp() * eps  # (M, k)
    own, pooled = z.new_empty(n_images), z.new_empty(n_images)  # ln q(z_n|x_n), ln q(z_n)
    for start in range(0, n_images, CHUNK):
        rows = slice(start, start + CHUNK)
        densities = log_densities(mu[rows], logvar[rows], eps[rows], mu, logvar)  # (CHUNK, M)
        own[rows] = densities.diagonal(start)
        pooled[rows] = densities.logsumexp(dim=1) - math.log(n_images)
    mutual_information = (own - pooled).mean().item()
    from vae.priors import exact_kl

    kl = exact_kl(prior, mu, logvar)  # (M,)
    if kl is None:
        constant = 0.5 * mu.shape[1] * math.log(2 * math.pi)  # which log_densities leaves out
        kl = own - constant - prior.log_prob(z.float()).double()
    return {
        "test_mutual_information": mutual_information,
        "test_mutual_information_ceiling": math.log(n_images),
        "test_aggregate_kl": kl.mean().item() - mutual_information,
    }


def log_densities(mu_i: Tensor, logvar_i: Tensor, eps: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """ln N(z_i; mu_j, exp(logvar_j)) + (k/2)·ln 2π for all pairs, where z_i = mu_i + sigma_i·eps_i.

    The square is expanded, as two matrix products instead of B·M·k terms. That loses digits to cancellation, about
    max(z²/var) times the rounding of one term: too many in single precision. Where they are too many in double
    precision too, as for a variance of e^-100, the terms are added one by one.

    Args:
        mu_i, logvar_i, eps: (B, k) float64 each.
        mu, logvar: (M, k) float64 each.

    Returns:
        (B, M) float64.
    """
    noise = (0.5 * logvar_i).exp() * eps  # (B, k)
    z = mu_i + noise
    precision = (-logvar).exp()  # (M, k)
    if z.square().max() * precision.max() > CANCELS:
        log_det = logvar.sum(dim=1)  # (M,)
        densities = z.new_empty(len(z), len(mu))
        for i in range(len(z)):  # mu_i - mu_j comes first: in z, the noise may be below the last digit of mu_i
            squares = (mu_i[i] - mu + noise[i]).square()  # (M, k)
            densities[i] = -0.5 * ((squares * precision).sum(dim=1) + log_det)
        return densities
    constant = (mu.square() * precision + logvar).sum(dim=1)  # (M,)
    return (z @ (mu * precision).T).sub_(0.5 * (z.square() @ precision.T + constant))


def moments(mu: Tensor, logvar: Tensor) -> dict[str, float]:
    """Mean and covariance of the aggregate posterior, compared with 0 and I of the prior: (M, k), (M, k) float64.

    Returns:
        test_aggregate_mean_norm: |E z|; up to sqrt(k/M) from the sampling of images alone.
        test_aggregate_variance_min, _mean, _max: over the dimensions, of Var z = Var mu + E var.
        test_aggregate_gaussian_kl: KL(N(E z, Cov z) || N(0, I)); up to k(k + 3)/(4M) from the sampling of images alone.
    """
    mean = mu.mean(dim=0)  # (k,)
    centred = mu - mean
    covariance = centred.T @ centred / len(mu) + logvar.exp().mean(dim=0).diag()  # (k, k)
    variance = covariance.diagonal()  # (k,)
    gaussian_kl = 0.5 * (mean.square().sum() + variance.sum() - len(mean) - covariance.logdet())
    return {
        "test_aggregate_mean_norm": mean.norm().item(),
        "test_aggregate_variance_min": variance.min().item(),
        "test_aggregate_variance_mean": variance.mean().item(),
        "test_aggregate_variance_max": variance.max().item(),
        "test_aggregate_gaussian_kl": gaussian_kl.item(),
    }
