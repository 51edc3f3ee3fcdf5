"""The losses, written once.

Per image, D = C·H·W pixels in [0, 1], k = z_dim, SSE = ||x - x_hat||² with z sampled, KL = KL(q(z|x, y) || N(0, I)) in
nats:

    elbo     SSE/(2·x_var) + (D/2)·ln(2π·x_var) + beta·KL
    per_dim  SSE/D + beta·KL/k

For a loss a·SSE + b·KL the optimum depends on effective_x_var = b/(2a) alone: beta·x_var, and beta·D/(2k).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vae.config import Beta, Config


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each dimension, in nats (Kingma and Welling 2014, appendix B).

    Raises:
        ValueError: unless mu and logvar have the same shape.
    """
    if mu.shape != logvar.shape:
        raise ValueError(f"mu {tuple(mu.shape)} and logvar {tuple(logvar.shape)} differ in shape")
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """||x - x_hat||² of each image: (..., D), (..., D) -> (...).

    Raises:
        ValueError: unless the shapes are equal; broadcasting here is the classic silent bug of a VAE's loss.
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"x {tuple(x.shape)} and x_hat {tuple(x_hat.shape)} differ in shape")
    return (x_hat - x).square().sum(dim=-1)


def gaussian_constant(input_dim: int, log_x_var: Tensor) -> Tensor:
    """(D/2)·ln(2π·x_var): the part of -ln N(x; x_hat, x_var·I) that does not depend on x, in nats per image."""
    return 0.5 * input_dim * (math.log(2 * math.pi) + log_x_var)


def weights(log_x_var: Tensor, per_dim: Tensor, input_dim: int, z_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each run as a·SSE + b·beta·KL + c.

    Args:
        log_x_var: ln x_var, (K,).
        per_dim: which runs have objective `per_dim`, (K,) bool; the others have `elbo`.

    Returns:
        a, b, c, (K,) each. Where x_var is fixed they are constants of the training.
    """
    a = torch.where(per_dim, 1 / input_dim, 0.5 * (-log_x_var).exp())
    b = torch.where(per_dim, 1 / z_dim, 1.0).to(log_x_var.dtype)
    c = torch.where(per_dim, 0.0, gaussian_constant(input_dim, log_x_var))
    return a, b, c


def loss(sse: Tensor, kl: Tensor, beta: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The loss per image of each run, (K,): nats for `elbo`.

    Args:
        sse, kl: means over the batch, (K,).
        beta: weight of the KL, (K,).
        weights: from `weights`.
    """
    a, b, c = weights
    return a * sse + b * beta * kl + c


def beta_schedule(beta: Beta, epochs: int, steps_per_epoch: int) -> np.ndarray:
    """beta at each step of the training, (epochs·steps_per_epoch,).

    `warmup` grows linearly from 0 (Bowman et al. 2016); `cyclical` repeats a linear ramp and a plateau (Fu et al. 2019,
    equation 6).
    """
    step = np.arange(epochs * steps_per_epoch)
    if beta.kind == "warmup":
        assert beta.epochs is not None
        share = np.minimum(step / (beta.epochs * steps_per_epoch), 1.0)
    elif beta.kind == "cyclical":
        assert beta.cycles is not None
        assert beta.ramp is not None
        position = step * beta.cycles / len(step) % 1.0
        share = np.minimum(position / beta.ramp, 1.0)
    else:
        share = np.ones(len(step))
    return beta.value * share


def effective_x_var(config: Config, x_var: float, input_dim: int, z_dim: int) -> float:
    """b/(2a) of a loss a·SSE + b·KL: beta·x_var for `elbo`, beta·D/(2k) for `per_dim`, with beta's final value.

    Args:
        x_var: of the decoder at the end of the training.
    """
    if config.objective.kind == "per_dim":
        return config.beta.value * input_dim / (2 * z_dim)
    return config.beta.value * x_var


def decoder_variance(config: Config, x_var: float, input_dim: int, z_dim: int) -> float:
    """The variance under which a run's likelihood is taken: x_var, or the effective one under `per_dim`.

    The optimum of `per_dim` is that of the ELBO at effective_x_var.
    """
    return effective_x_var(config, x_var, input_dim, z_dim) if config.objective.kind == "per_dim" else x_var
