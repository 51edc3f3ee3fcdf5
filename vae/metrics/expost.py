"""Is the prior to blame for bad samples? The scores of samples whose z comes from a fit to the latents instead.

After training, a density is fitted to the posterior means of the training images, and its z are decoded (Ghosh et al.
2020, "From variational to deterministic autoencoders", section 4: ex-post density estimation). The decoder stays the
same, so what the samples gain over those of the prior is the prior's fault, and what then still separates them from
reconstructions is not.

Two densities are fitted: a Gaussian, and a mixture of COMPONENTS Gaussians with full covariances. If the decoder
receives the label, there is one fit per class. Where images are few:

- A class with no more images than latent dimensions has its own mean and the covariance pooled within all classes, as
  in linear discriminant analysis. That may be singular, as sampling needs no inverse.
- A mixture has at most one component for PER_DIMENSION images per latent dimension, and with less than two components
  it is the Gaussian. With fewer images per component it would repeat the training images: on mnist_5k (z_dim 100,
  x_var 0.01, 400 images per class) FFD falls from 1.96 with two components to 1.48 with ten, and 1.23 is that of z
  drawn from the posterior means themselves.

The posterior means vary less than z: a dimension without information has mu = 0. Reconstructions, with which these
samples are compared, are decoded from the means too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vae.metrics.generation import judge_of
from vae.metrics.posterior import encoded
from vae.metrics.registry import Family, Metric, Result, Subject, shared

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vae.density import GaussianMixture

MAX_IMAGES = 20_000  # that the densities are fitted to
COMPONENTS = 10  # as in Ghosh et al. 2020
PER_DIMENSION = 2  # images of each component, at least, times the latent dimensions
FLOOR = 1e-3  # added to each variance of a component, times the mean variance of a latent dimension
SHOWN = 10  # images of each kind in the picture

expost = Family("expost", version=1, arrays=True, on_request=True)

FITS = {"gaussian": "Gaussian", "mixture": "mixture"}
SCORES = (
    ("accuracy", "share that the judge assigns to the requested class", "higher", "accuracy"),
    ("ffd", "Fréchet distance to held-out images", "lower", "FFD"),
    ("density", "density (Naeem et al. 2020)", "higher", "density"),
    ("coverage", "coverage (Naeem et al. 2020)", "higher", "coverage"),
    ("sharpness", "variance of the Laplacian (lower: blurrier)", "", "sharpness"),
)


@expost.computes(
    *(
        Metric(
            f"expost_{fit}_{score}",
            "",
            f"as sample_{score}, with z from a {name} fitted to the posterior means of training images: {meaning}",
            direction,
            f"{heading}, {name}",
        )
        for fit, name in FITS.items()
        for score, meaning, direction, heading in SCORES
    ),
    Metric(
        "expost_components",
        "",
        "components of the mixture, mean over classes if each has its own; fewer than 10 where images are few",
        "",
        "components of the mixture",
    ),
)
def scores(subject: Subject) -> dict[str, float | None]:
    from vae.judge import MIN_SIZE, sample_scores
    from vae.seeding import generator

    fitted = fits(subject)
    if not fitted:
        return {}
    values: dict[str, float | None] = {
        "expost_components": sum(len(own.weights) for own in fitted["mixture"]) / len(fitted["mixture"])
    }
    if min(subject.data.image_shape[1:]) < MIN_SIZE:
        return values
    judge = judge_of(subject.data, subject.cache)
    y = subject.data.test_y[judge.held_out]  # (n,)
    conditional = subject.config.label_placement.kind != "none"
    for fit, densities in fitted.items():
        z = drawn(densities, y, generator(subject.config.seed, f"expost {fit}"))  # (n, k)
        found = sample_scores(judge, subject.model.decode(z, y), y if conditional else None)
        values |= {f"expost_{fit}_{score}": value for score, value in found.items()}
    return values


@expost.computes()
def picture(subject: Subject) -> Result:
    """Inputs, reconstructions, and samples of their classes from prior and fits: (SHOWN, C, H, W) uint8 each."""
    import numpy as np

    from vae.gallery import levels, spread
    from vae.seeding import generator
    from vae.sheet import Sheet

    fitted, model, seed = fits(subject), subject.model, subject.config.seed
    if not fitted:
        return Result()
    picked = spread(subject.data.test_y, SHOWN)
    x, y = subject.data.test_x[picked], subject.data.test_y[picked]  # (n, C, H, W), (n,)
    arrays = {
        "inputs": x.numpy(),
        "reconstructions": levels(model.reconstruct(x, y)),
        "prior": levels(model.sample(y, seed=seed)),
    }
    for fit, densities in fitted.items():
        arrays[fit] = levels(model.decode(drawn(densities, y, generator(seed, f"expost picture {fit}")), y))
    sheet = Sheet(np.stack(list(arrays.values())), ["input", "reconstruction", "prior", *FITS.values()])
    return Result(arrays=arrays, images={"expost": sheet.draw()})


@shared
def fits(subject: Subject) -> dict[str, list[GaussianMixture]]:
    """The densities by the names of FITS: one per class, or one alone if the decoder does not receive the label.

    None if a posterior mean is not finite.
    """
    import torch

    from vae.density import GaussianMixture, gaussian, mixture
    from vae.seeding import generator

    data, z_dim = subject.data, subject.model.arch.z_dim
    index = torch.randperm(len(data.train_x), generator=generator(0, "expost images"))[:MAX_IMAGES]  # (N,)
    mu, _ = encoded(subject, "train", index)  # (N, k)
    if not mu.isfinite().all():
        return {}
    labelled = subject.model.arch.decoder_repeat > 0
    y = data.train_y[index] if labelled else torch.zeros(len(mu), dtype=torch.int64)  # (N,)
    groups = [mu[y == c] for c in range(data.n_classes if labelled else 1)]  # (N_c, k) each
    means = torch.stack([(own if len(own) else mu).mean(dim=0) for own in groups])  # (classes, k)
    centred = mu - means[y]  # (N, k)
    pooled = centred.T @ centred / len(mu)  # (k, k)
    floor = FLOOR * mu.var(dim=0, correction=0).mean().item() + 1e-12  # all mu may be the same
    gen = generator(subject.config.seed, "expost fit")
    gaussians, mixtures = [], []
    for own, mean in zip(groups, means, strict=True):
        own_or_pooled = gaussian(own) if len(own) > z_dim else GaussianMixture(mu.new_ones(1), mean[None], pooled[None])
        n_components = min(COMPONENTS, len(own) // (PER_DIMENSION * z_dim))
        gaussians.append(own_or_pooled)
        mixtures.append(mixture(own, n_components, floor, gen) if n_components > 1 else own_or_pooled)
    return {"gaussian": gaussians, "mixture": mixtures}


def drawn(densities: Sequence[GaussianMixture], y: Tensor, gen: torch.Generator) -> Tensor:
    """z from the density of each label: (n,) -> (n, k) float32. A single density serves all labels."""
    import torch

    if len(densities) == 1:
        return densities[0].sample(len(y), gen).float()
    z = torch.empty(len(y), densities[0].means.shape[1])
    for c, density in enumerate(densities):
        z[y == c] = density.sample(int((y == c).sum()), gen).float()
    return z
