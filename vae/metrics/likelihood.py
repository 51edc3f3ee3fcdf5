"""Lower bounds on ln p(x|y), with beta = 1 whatever the run was trained with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vae import conventions
from vae.metrics.posterior import posteriors
from vae.metrics.reconstruction import errors, exact_x_var
from vae.metrics.registry import Family, Metric, Subject, each_split

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IW_IMAGES = 250  # the bound on them takes most of the time spent here
IW_SAMPLES = 64

likelihood = Family("likelihood", version=1)


@likelihood.computes(
    *each_split(
        Metric(
            "elbo",
            "nats",
            "lower bound on ln p(x|y) per image at beta = 1, where p is a density on pixels in [0, 1]",
            "higher",
            "ELBO (nats)",
        ),
        Metric("elbo_per_dim", "nats", "elbo/D, in nats per pixel and channel", "higher", "ELBO per pixel (nats)"),
        Metric("bits_per_dim", "bits", "8 - elbo/(D ln 2), for 8-bit pixels", "lower", "bits per dimension"),
    )
)
def elbo(subject: Subject) -> dict[str, Any]:
    input_dim = subject.model.arch.input_dim
    values = {}
    for split in subject.splits():
        found = errors(subject, split)
        row = conventions.normalised_elbo(found.sse, found.kl, decoder_variance(subject), input_dim)
        values |= {f"{split}_{name}": value for name, value in row.items()}
    return values


@likelihood.computes(
    Metric(
        "test_iw_elbo",
        "nats",
        "importance-weighted lower bound on ln p(x|y) per image: 64 samples, 250 held-out images (Burda et al. 2016)",
        "higher",
        "IW-ELBO (nats)",
    ),
    Metric(
        "test_iw_gap",
        "nats",
        "test_iw_elbo minus the ELBO of the same images and samples",
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
    bound, gap = importance_weighted(
        subject, images[index], labels[index], found.mu[:IW_IMAGES], found.logvar[:IW_IMAGES], noise, IW_SAMPLES
    )
    return {"test_iw_elbo": bound, "test_iw_gap": gap}


def decoder_variance(subject: Subject) -> float:
    """The variance at which the run's likelihood is taken."""
    from vae import objective

    arch = subject.model.arch
    return objective.decoder_variance(subject.config, exact_x_var(subject), arch.input_dim, arch.z_dim)


def importance_weighted(
    subject: Subject, x: Tensor, y: Tensor, mu: Tensor, logvar: Tensor, noise: torch.Generator, n_samples: int
) -> tuple[float, float]:
    """The importance-weighted bound on ln p(x|y) (Burda et al. 2016, equation 8).

    Args:
        x, y: images (B, C, H, W) uint8 and labels (B,).
        mu, logvar: of their posteriors, (B, k) float64 each.
        n_samples: S, number of z per image.

    Returns:
        The bound, the mean over images of ln (1/S)·sum of w_s with w_s = p(x|z_s, y)·p(z_s)/q(z_s|x, y), in nats per
        image; and its gap to the mean of ln w_s, the ELBO of the same images and samples.
    """
    import torch

    from vae import objective

    input_dim = subject.model.arch.input_dim
    log_x_var = torch.tensor(decoder_variance(subject), dtype=torch.float64).log()
    sigma = (0.5 * logvar).exp()
    flat = (x.float() / 255).flatten(1)  # (B, D)
    log_w = torch.empty(n_samples, len(mu), dtype=torch.float64)  # (S, B)
    for s in range(n_samples):
        eps = torch.randn(mu.shape, generator=noise).double()  # (B, k)
        z = mu + sigma * eps
        sse = objective.squared_error(flat, subject.model.decode(z.float(), y).flatten(1)).double()  # (B,)
        log_likelihood = -sse / (2 * log_x_var.exp()) - objective.gaussian_constant(input_dim, log_x_var)
        # ln p(z)/q(z|x): the factors 2π cancel.
        log_w[s] = log_likelihood + 0.5 * (eps.square() + logvar - z.square()).sum(dim=-1)
    bound = (log_w.logsumexp(dim=0) - math.log(n_samples)).mean().item()
    return bound, bound - log_w.mean().item()
