"""p(z): the distribution that samples are drawn from and that the KL compares posteriors with.

A prior of your own is a class like these, named by `prior.kind=custom prior.part={_target_: ...}` and called with
`z_dim`. It has these methods:

    sample(noise (n, k), chance (n,)) -> (n, k)      noise: standard normal numbers; chance: uniform numbers in [0, 1)
    log_prob(z (B, k)) -> (B,)
    kl(mu (B, k), logvar (B, k)) -> (B,)             optional: if there is none, the KL is estimated from samples
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vae import parts


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each dimension, in nats (Kingma and Welling 2014, appendix B).

    Raises:
        ValueError: unless mu and logvar have the same shape.
    """
    if mu.shape != logvar.shape:
        raise ValueError(f"mu {tuple(mu.shape)} and logvar {tuple(logvar.shape)} differ in shape")
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def gaussian_log_prob(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """ln N(z; mu, exp(logvar)), summed over the last dimension: (..., k), (..., k), (..., k) -> (...)."""
    return -0.5 * ((z - mu).square() * (-logvar).exp() + logvar + math.log(2 * math.pi)).sum(dim=-1)


class Prior(nn.Module):
    """The base of all priors."""

    def sample(self, noise: Tensor, chance: Tensor) -> Tensor:
        """Samples, (n, k), made from standard normal numbers (n, k) and uniform numbers (n,)."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """ln p(z): (B, k) -> (B,)."""
        raise NotImplementedError


class Standard(Prior):
    """N(0, I)."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()

    def sample(self, noise: Tensor, chance: Tensor) -> Tensor:
        return noise

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=-1)

    def kl(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """KL(N(mu, exp(logvar)) || N(0, I)), (B,) nats."""
        return gaussian_kl(mu, logvar).sum(dim=-1)


class _OfComponents(Prior):
    """(1/M)·sum of M Gaussians. The KL to it has no closed form."""

    def components(self) -> tuple[Tensor, Tensor]:
        """mu and logvar of the components, (M, k) each."""
        raise NotImplementedError

    def sample(self, noise: Tensor, chance: Tensor) -> Tensor:
        mu, logvar = self.components()
        of = (chance * len(mu)).long().clamp(max=len(mu) - 1)  # (n,)
        return mu[of] + (0.5 * logvar[of]).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        mu, logvar = self.components()
        each = gaussian_log_prob(z[..., None, :], mu, logvar)  # (B, M)
        return each.logsumexp(dim=-1) - math.log(len(mu))


class Mixture(_OfComponents):
    """Learned Gaussians with diagonal covariances and equal weights. Their initial means are drawn from N(0, I)."""

    def __init__(self, z_dim: int, components: int = 10) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.randn(components, z_dim))  # (M, k)
        self.logvar = nn.Parameter(torch.zeros(components, z_dim))

    def components(self) -> tuple[Tensor, Tensor]:
        return self.mu, self.logvar


class Vamp(_OfComponents):
    """The average of the posteriors of learned pseudo-inputs (Tomczak and Welling 2018).

    The pseudo-inputs are images in [0, 1], here sigmoids of unbounded parameters. If the encoder receives the label,
    each pseudo-input also has a learned pseudo-label: weights of the classes that sum to 1.

    Args:
        n_classes: 0 if the encoder does not receive the label.
        encode: the encoder, from images (M, C, H, W) and class weights (M, n_classes) to mu and logvar (M, k).
    """

    def __init__(
        self,
        z_dim: int,
        image_shape: tuple[int, int, int],
        n_classes: int,
        encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        components: int = 50,
    ) -> None:
        super().__init__()
        self.encode = encode
        self.logits = nn.Parameter(torch.randn(components, *image_shape) - 1)  # (M, C, H, W)
        if n_classes:
            self.class_logits = nn.Parameter(torch.randn(components, n_classes))  # (M, n_classes)

    def components(self) -> tuple[Tensor, Tensor]:
        images = torch.sigmoid(self.logits)
        weights = getattr(self, "class_logits", images.new_zeros(len(images), 0)).softmax(dim=1)
        return self.encode(images, weights)


def exact_kl(prior: nn.Module, mu: Tensor, logvar: Tensor) -> Tensor | None:
    """KL(N(mu, exp(logvar)) || p), (B,) nats; None if there is no closed form."""
    kl = getattr(prior, "kl", None)
    return None if kl is None else kl(mu, logvar)


KINDS: dict[str, type[Prior]] = {"standard": Standard, "mixture": Mixture, "vamp": Vamp}


def prior_of(
    spec: Mapping[str, Any],
    z_dim: int,
    image_shape: tuple[int, int, int],
    n_classes: int,
    encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Prior:
    """The prior of a specification: its kind with arguments, or `part` with `_target_`.

    Raises:
        ConfigError: if a part of the user's own cannot be made.
    """
    own = {key: value for key, value in spec.items() if key != "kind"}
    if spec["kind"] == "custom":
        return parts.make("prior.part", own["part"], z_dim=z_dim)
    if spec["kind"] == "vamp":
        return Vamp(z_dim, image_shape, n_classes, encode, **own)
    return KINDS[spec["kind"]](z_dim, **own)
