"""Lower bounds on ln p(x|y), with beta = 1 whatever the run was trained with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vae import conventions
from vae.metrics.posterior import posteriors
from vae.metrics.reconstruction import errors
from vae.metrics.registry import Family, Metric, Subject, each_split

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IW_IMAGES = 250  # the bound on them takes most of the time spent here
IW_SAMPLES = 64

likelihood = Family("likelihood", version=2)


@likelihood.computes(
    *each_split(
        Metric(
            "elbo",
            "nats",
            "lower bound on ln p(x|y) per image at beta = 1; see likelihood_of",
            "higher",
            "ELBO (nats)",
        ),
        Metric("elbo_per_dim", "nats", "elbo/D, nats per value of an image", "higher", "ELBO per pixel (nats)"),
        Metric(
            "bits_per_dim",
            "bits",
            "-elbo/(D ln 2), plus 8 if the likelihood is a density, because pixels are scaled from 0-255 to [0, 1]; "
            "null for binary pixels and for likelihoods that do not say what they measure",
            "lower",
            "bits per dimension",
        ),
    )
)
def elbo(subject: Subject) -> dict[str, Any]:
    input_dim = subject.model.arch.input_dim
    values = {}
    for split in subject.splits():
        found = errors(subject, split)
        if subject.config.objective.kind == "per_dim":
            bound = conventions.gaussian_elbo(found.sse, found.kl, decoder_variance(subject), input_dim)
        else:
            bound = found.log_px - found.kl
        row = {
            "elbo": bound,
            "elbo_per_dim": bound / input_dim,
            "bits_per_dim": conventions.bits_per_dim(bound, _measure(subject), input_dim),
        }
        values |= {f"{split}_{name}": value for name, value in row.items()}
    return values


@likelihood.computes(
    Metric(
        "likelihood_of",
        "",
        "what ln p(x|z, y) is the logarithm of: a density of pixels scaled to [0, 1], the probability of 8-bit levels "
        "or of black and white pixels; ELBOs of different kinds are not comparable",
        "",
        "likelihood of",
    )
)
def likelihood_of(subject: Subject) -> str:
    return conventions.MEASURES.get(_measure(subject), "something else")


@likelihood.computes(
    Metric(
        "test_iw_elbo",
        "nats",
        "importance-weighted bound on ln p(x|y) with 64 samples, per image, on 250 held-out images (Burda et al. 2016)",
        "higher",
        "IW-ELBO (nats)",
    ),
    Metric(
        "test_iw_gap",
        "nats",
        "how much test_iw_elbo exceeds the ELBO of the same images and samples",
        "lower",
        "gap of the ELBO (nats)",
    ),
)
def importance_weighted_elbo(subject: Subject) -> dict[str, float]:
    import torch

    found = posteriors(subject)
    index = found.index[:IW_IMAGES]  # (B,)
    noise = torch.Generator()
    noise.set_state(found.state)
    images, labels = subject.images("test")
    log_w = log_weights(
        subject, images[index], labels[index], found.mu[:IW_IMAGES], found.logvar[:IW_IMAGES], noise, IW_SAMPLES
    )  # (S, B)
    bound = (log_w.logsumexp(dim=0) - math.log(IW_SAMPLES)).mean().item()
    return {"test_iw_elbo": bound, "test_iw_gap": bound - log_w.mean().item()}


def _measure(subject: Subject) -> str:
    return getattr(subject.model.module.likelihood, "measure", "other")


def decoder_variance(subject: Subject) -> float:
    """The variance under which the likelihood of a run with `per_dim` is taken: its optimum is the ELBO's there."""
    from vae.objectives import effective_x_var

    arch = subject.model.arch
    variance = effective_x_var(subject.config, subject.model.x_var, arch.input_dim, arch.z_dim)
    assert variance is not None
    return variance


def log_weights(
    subject: Subject, x: Tensor, y: Tensor, mu: Tensor, logvar: Tensor, noise: torch.Generator, n_samples: int
) -> Tensor:
    """ln of p(x|z_s, y)·p(z_s)/q(z_s|x, y) with z_s ~ q(z|x, y), (S, B) float64 (Burda et al. 2016, equation 8).

    Args:
        x, y: images (B, C, H, W) uint8 and labels (B,). If the likelihood is of binarized pixels, x is binarized once.
        mu, logvar: of their posteriors, (B, k) float64 each.
        noise: draws the binarized pixels and z.
        n_samples: S, number of z per image.
    """
    import torch

    from vae.likelihoods import likelihood_of
    from vae.priors import gaussian_log_prob

    network, arch = subject.model.module, subject.model.arch
    measured = network.likelihood
    if subject.config.objective.kind == "per_dim":
        measured = likelihood_of({**arch.likelihood, "value": decoder_variance(subject)})
    target = x.float() / 255  # (B, C, H, W)
    if getattr(measured, "binarizes", False):
        target = (torch.rand(target.shape, generator=noise) < target).float()
    sigma = (0.5 * logvar).exp()
    log_w = torch.empty(n_samples, len(mu), dtype=torch.float64)
    for s in range(n_samples):
        z = mu + sigma * torch.randn(mu.shape, generator=noise).double()  # (B, k)
        single = z.float()
        log_px = measured.log_prob(target, subject.model.parameters(single, y)).double()
        log_w[s] = log_px + network.prior.log_prob(single).double() - gaussian_log_prob(z, mu, logvar)
    return log_w
