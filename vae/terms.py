"""The terms of a batch, which the loss is computed from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from vae.likelihoods import Likelihood
from vae.priors import Prior, exact_kl, gaussian_log_prob


@dataclass(frozen=True)
class Terms:
    """What an objective is computed from, for B images with S samples of z each.

    Attributes:
        x: pixels in [0, 1], (B, C, H, W).
        parameters: of p(x|z, y), (S, B, p·C, H, W).
        likelihood: p(x|z, y).
        log_px: ln p(x|z, y), (S, B) nats.
        mu, logvar: of q(z|x, y), (B, k) each.
        z: samples from it, (S, B, k).
        prior: p(z).
        beta: weight of the KL at this step, a number.
        progress: share of the training that is done, from 0 to 1.
        noise: random numbers of this step. With `draws_prior`, they include `prior` (B, k), standard normal, and
            `chance` (B,), uniform.
    """

    x: Tensor
    parameters: Tensor
    likelihood: Likelihood
    log_px: Tensor
    mu: Tensor
    logvar: Tensor
    z: Tensor
    prior: Prior
    beta: Tensor
    progress: Tensor
    noise: Mapping[str, Tensor]

    @cached_property
    def sse(self) -> Tensor:
        """||x - x_hat||² of each image with its first z, where x_hat is the mean of p(x|z, y): (B,)."""
        return squared_error(self.x, self.likelihood.mean(self.parameters[0]))

    @cached_property
    def log_qz(self) -> Tensor:
        """ln q(z|x, y), (S, B)."""
        return gaussian_log_prob(self.z, self.mu, self.logvar)

    @cached_property
    def log_pz(self) -> Tensor:
        """ln p(z), (S, B)."""
        return self.prior.log_prob(self.z.flatten(0, 1)).view(self.z.shape[:2])

    @cached_property
    def kl(self) -> Tensor:
        """KL(q(z|x, y) || p(z)) of each image, (B,) nats: in closed form, or else estimated from the samples."""
        exact = exact_kl(self.prior, self.mu, self.logvar)
        return (self.log_qz - self.log_pz).mean(dim=0) if exact is None else exact

    def but(self, **values: Any) -> Terms:
        """The same terms with other values. What is computed from these values changes with them."""
        changed = dataclasses.replace(self)
        vars(changed).update(values)
        return changed


Objective = Callable[[Terms], Tensor]


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """||x - x_hat||² of each image: (..., C, H, W), (..., C, H, W) -> (...).

    Raises:
        ValueError: unless the shapes are equal. Broadcasting here is a classic silent bug in the loss of a VAE.
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"x {tuple(x.shape)} and x_hat {tuple(x_hat.shape)} differ in shape")
    return (x_hat - x).square().flatten(-3).sum(dim=-1)
