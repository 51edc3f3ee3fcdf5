"""Squared error, KL and what follows from them, on training, validation and held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vae import conventions
from vae.metrics.registry import Family, Metric, Subject, each_split, shared

BATCH = 1000

reconstruction = Family("reconstruction", version=2)


@reconstruction.computes(
    *each_split(
        Metric("sse", "", "squared error per image, z sampled", "lower", "SSE"),
        Metric("sse_mean", "", "squared error per image, z = mu", "lower", "SSE at z = mu"),
        Metric("kl", "nats", "KL(q(z|x, y) || p(z)) per image; see kl_estimate", "", "KL (nats)"),
        Metric(
            "kl_per_dim",
            "nats",
            "the KL of each latent dimension (a list); null unless the prior is N(0, I)",
            "",
            "KL per dimension (nats)",
        ),
        Metric(
            "active_units",
            "",
            "number of latent dimensions whose mu has a variance above 0.01 across images (Burda et al. 2016)",
            "",
            "active units",
        ),
        Metric("log_px", "nats", "mean ln p(x|z, y) per image, z sampled", "higher", "ln p(x|z) (nats)"),
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
            "log_px": found.log_px,
            "loss": found.loss,
            **conventions.study_columns(found.sse, found.kl, model.arch.input_dim, model.arch.z_dim),
            "baseline_zero": facts.sse_zero[split],
            "baseline_mean": facts.sse_mean[split],
            "baseline_class_means": facts.sse_class_means[split],
        }
        values |= {f"{split}_{name}": value for name, value in row.items()}
    return values


@reconstruction.computes(
    *each_split(
        Metric(
            "printed_r", "", "reconstruction error per image as the code with a bug prints it", "", "SSE as printed"
        ),
        Metric("printed_kl", "", "KL per image as the code with a bug prints it", "", "KL as printed"),
    )
)
def printed(subject: Subject) -> dict[str, float]:
    """Of runs with a bug alone."""
    found = {split: errors(subject, split).printed for split in subject.splits()}
    return {
        f"{split}_printed_{name}": value
        for split, values in found.items()
        if values is not None
        for name, value in zip(("r", "kl"), values, strict=True)
    }


@reconstruction.computes(
    Metric("kl_estimate", "", "how the KL is computed: in closed form, or from samples of z", "", "KL computed")
)
def kl_estimate(subject: Subject) -> str:
    return "from samples" if errors(subject, "test").kl_is_sampled else "in closed form"


@dataclass(frozen=True)
class Errors:
    """Means per image over a set of images.

    Attributes:
        sse: squared error with z sampled.
        sse_mean: squared error with z = mu.
        kl, log_px: in nats.
        kl_per_dim: k values in nats; None unless the prior is N(0, I).
        kl_is_sampled: whether the KL has no closed form.
        active_units: dimensions with Var mu > conventions.ACTIVE_VARIANCE.
        loss: the run's objective at its final beta.
        printed: error and KL as a code with a bug prints them; None for a run without one.
    """

    sse: float
    sse_mean: float
    kl: float
    kl_per_dim: list[float] | None
    kl_is_sampled: bool
    active_units: int
    log_px: float
    loss: float
    printed: tuple[float, float] | None


@shared
def errors(subject: Subject, split: str) -> Errors:
    """Squared errors, KL, log-likelihood and loss on the images of one split."""
    import torch

    from vae.buggy import Buggy
    from vae.objectives import objective_of
    from vae.priors import Standard, gaussian_kl
    from vae.seeding import generator

    model, network, (images, labels) = subject.model, subject.model.module, subject.images(split)
    n_images = len(images)
    noise = generator(subject.config.seed, "evaluate")
    objective = objective_of(subject.config, len(subject.data.train_x))
    beta, done = torch.tensor(subject.config.beta.value), torch.tensor(1.0)
    no_noise = subject.config.bug.kind == "no_noise"
    standard = isinstance(network.prior, Standard)
    # SSE, SSE at z = mu, KL, ln p(x|z), loss, error and KL as printed
    sums = torch.zeros(7, dtype=torch.float64)
    kl_per_dim, mu_sum, mu_square_sum = torch.zeros(3, model.arch.z_dim, dtype=torch.float64)  # (k,) each
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        scaled = x.float() / 255  # (B, C, H, W)
        drawn = {
            name: (torch.randn if kind == "normal" else torch.rand)(shape, generator=noise)
            for name, (kind, shape) in network.noise_shapes(objective, len(x)).items()
        }
        terms = network.terms(scaled, y, drawn, beta, done)
        at_mean = (model.decode(terms.mu, y) - scaled).square().flatten(1).sum(dim=1)  # (B,)
        trained = network.terms(scaled, y, network.noise_in_training(drawn), beta, done) if no_noise else terms
        own = objective.printed(trained) if isinstance(objective, Buggy) else (terms.sse, terms.kl)
        means = [terms.sse, at_mean, terms.kl, terms.log_px.mean(dim=0), objective(trained).expand(len(x)), *own]
        sums += torch.stack([value.double().sum() for value in means])
        if standard:
            kl_per_dim += gaussian_kl(terms.mu, terms.logvar).double().sum(dim=0)
        mu_sum += terms.mu.double().sum(dim=0)
        mu_square_sum += terms.mu.double().square().sum(dim=0)
    variance = mu_square_sum / n_images - (mu_sum / n_images).square()  # (k,)
    sse, sse_mean, kl, log_px, loss, *as_printed = (sums / n_images).tolist()
    per_dim = (kl_per_dim / n_images).tolist() if standard else None
    return Errors(
        sse=sse,
        sse_mean=sse_mean,
        kl=sum(per_dim) if per_dim else kl,
        kl_per_dim=per_dim,
        kl_is_sampled=not hasattr(network.prior, "kl"),
        active_units=int((variance > conventions.ACTIVE_VARIANCE).sum()),
        log_px=log_px,
        loss=loss,
        printed=(as_printed[0], as_printed[1]) if isinstance(objective, Buggy) else None,
    )
