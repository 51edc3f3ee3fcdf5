"""Squared error, KL and what follows from them, on training, validation and held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vae import conventions
from vae.metrics.registry import Family, Metric, Subject, each_split, shared

BATCH = 1000

reconstruction = Family("reconstruction", version=1)


@reconstruction.computes(
    *each_split(
        Metric("sse", "", "squared error per image, z sampled", "lower", "SSE"),
        Metric("sse_mean", "", "squared error per image, z = mu", "lower", "SSE at z = mu"),
        Metric("kl", "nats", "KL(q(z|x, y) || N(0, I)) per image", "", "KL (nats)"),
        Metric("kl_per_dim", "nats", "the KL of each latent dimension (a list)", "", "KL per dimension (nats)"),
        Metric(
            "active_units",
            "",
            "latent dimensions whose mu has a variance above 0.01 across images (Burda et al. 2016)",
            "",
            "active units",
        ),
        Metric("loss", "", "the objective per image", "lower", "loss"),
        Metric("kl_offset", "nats", "KL as study A reports it: kl + k/2", "", "KL + k/2"),
        Metric("r_half_sse", "", "reconstruction error as study A reports it: sse/2", "lower", "SSE/2"),
        Metric("kld_loss", "nats", "KLD as study B reports it: 128·kl/k", "", "KLD"),
        Metric("r_loss", "", "R as study B reports it: 128·sse/D", "lower", "R"),
        Metric(
            "baseline_zero", "", "squared error per image of an all-zero reconstruction", "", "SSE of the zero image"
        ),
        Metric(
            "baseline_mean",
            "",
            "squared error per image of the mean training image as reconstruction",
            "",
            "SSE of the mean image",
        ),
        Metric(
            "baseline_class_means",
            "",
            "squared error per image of the mean training image of the class as reconstruction",
            "",
            "SSE of the class means",
        ),
    )
)
def columns(subject: Subject) -> dict[str, Any]:
    model, facts = subject.model, subject.facts
    values = {}
    for split in subject.splits():
        found = errors(subject, split)
        row = {
            "sse": found.sse,
            "sse_mean": found.sse_mean,
            "kl": found.kl,
            "kl_per_dim": found.kl_per_dim,
            "active_units": found.active_units,
            "loss": loss(subject, found.sse, found.kl),
            **conventions.study_columns(found.sse, found.kl, model.arch.input_dim, model.arch.z_dim),
            "baseline_zero": facts.sse_zero[split],
            "baseline_mean": facts.sse_mean[split],
            "baseline_class_means": facts.sse_class_means[split],
        }
        values |= {f"{split}_{name}": value for name, value in row.items()}
    return values


@dataclass(frozen=True)
class Errors:
    """Means per image over a set of images.

    Attributes:
        sse: squared error with z sampled.
        sse_mean: squared error with z = mu.
        kl_per_dim: k values in nats.
        active_units: dimensions with Var mu > conventions.ACTIVE_VARIANCE.
    """

    sse: float
    sse_mean: float
    kl_per_dim: list[float]
    active_units: int

    @property
    def kl(self) -> float:
        return sum(self.kl_per_dim)


@shared
def errors(subject: Subject, split: str) -> Errors:
    """Squared errors and KL on the images of one split."""
    import torch

    from vae import objective
    from vae.layers import generator

    model, (images, labels) = subject.model, subject.images(split)
    n_images, z_dim = len(images), model.arch.z_dim
    noise = generator(subject.config.seed, "evaluate")
    sse, sse_mean = torch.zeros(2, dtype=torch.float64)
    kl_per_dim, mu_sum, mu_square_sum = torch.zeros(3, z_dim, dtype=torch.float64)  # (k,) each
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        mu, logvar = model.encode(x, y)  # (B, k) each
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=noise)  # (B, k)
        flat = (x.float() / 255).flatten(1)  # (B, D)
        sse += objective.squared_error(flat, model.decode(z, y).flatten(1)).double().sum()
        sse_mean += objective.squared_error(flat, model.decode(mu, y).flatten(1)).double().sum()
        kl_per_dim += objective.gaussian_kl(mu, logvar).double().sum(dim=0)
        mu_sum += mu.double().sum(dim=0)
        mu_square_sum += mu.double().square().sum(dim=0)
    variance = mu_square_sum / n_images - (mu_sum / n_images).square()  # (k,)
    return Errors(
        sse=sse.item() / n_images,
        sse_mean=sse_mean.item() / n_images,
        kl_per_dim=(kl_per_dim / n_images).tolist(),
        active_units=int((variance > conventions.ACTIVE_VARIANCE).sum()),
    )


def exact_x_var(subject: Subject) -> float:
    """The decoder's variance in double precision: likelihoods divide by it."""
    import torch

    return torch.tensor(subject.model.log_x_var, dtype=torch.float64).exp().item()


def loss(subject: Subject, sse: float, kl: float) -> float:
    """The run's objective at its final beta and x_var."""
    import torch

    from vae import objective

    arch, config = subject.model.arch, subject.config
    log_x_var = torch.tensor(exact_x_var(subject), dtype=torch.float64).log()
    per_dim = torch.tensor(config.objective.kind == "per_dim")
    weights = objective.weights(log_x_var, per_dim, arch.input_dim, arch.z_dim)
    error, divergence, beta = torch.tensor([sse, kl, config.beta.value], dtype=torch.float64)
    return objective.loss(error, divergence, beta, weights).item()
