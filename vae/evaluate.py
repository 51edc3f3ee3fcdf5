"""The final numbers of trained runs, on training and on held-out images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae import conventions, objective
from vae.layers import generator
from vae.stack import Stack
from vae.train import pixels

ACTIVE_VARIANCE = 0.01  # a unit is active if Var over x of its mu exceeds this (Burda et al. 2016, section 5.2)
BATCH = 1000


@torch.no_grad()
def evaluate(stack: Stack, images: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """Each run's numbers on one set of images, as means per image.

    Args:
        images: (N, D) uint8, on the stack's device.
        labels: (N,) int64, likewise.

    Returns:
        A dictionary a run: `sse` with z sampled and `sse_mean` with z = mu (squared error), `kl` (nats), `kl_per_dim`
        (k nats), `active_units`, `loss`, `elbo`, `elbo_per_dim`, `bits_per_dim`, and the studies' columns `kl_offset`,
        `r_half_sse`, `kld_loss`, `r_loss` (see conventions.py).
    """
    arch, n_runs, n_images = stack.arch, stack.n_runs, len(images)
    noise = [generator(c.seed, "evaluate", stack.device) for c in stack.configs]
    sse = torch.zeros(n_runs, dtype=torch.float64, device=stack.device)
    sse_mean = torch.zeros_like(sse)
    kl_per_dim, mu_sum, mu_square_sum = (
        torch.zeros(n_runs, arch.z_dim, dtype=torch.float64, device=stack.device) for _ in range(3)
    )
    for start in range(0, n_images, BATCH):
        index = torch.arange(start, min(start + BATCH, n_images), device=stack.device).expand(n_runs, -1)  # (K, B)
        x, y = pixels(images, index), labels[index]  # (K, B, D), (K, B)
        mu, logvar = stack.model.encode(x, y)  # (K, B, k) each
        eps = torch.stack([torch.randn(*mu.shape[1:], generator=g, device=stack.device) for g in noise])
        sampled = stack.model.decode(mu + (0.5 * logvar).exp() * eps, y)  # (K, B, D)
        sse += objective.squared_error(x, sampled).double().sum(dim=1)
        sse_mean += objective.squared_error(x, stack.model.decode(mu, y)).double().sum(dim=1)
        kl_per_dim += objective.gaussian_kl(mu, logvar).double().sum(dim=1)
        mu_sum += mu.double().sum(dim=1)
        mu_square_sum += mu.double().square().sum(dim=1)
    kl_per_dim /= n_images
    variance = mu_square_sum / n_images - (mu_sum / n_images).square()  # (K, k)
    active = (variance > ACTIVE_VARIANCE).sum(dim=1)
    x_vars = stack.log_x_var.double().exp()
    return [
        metrics(
            stack.configs[k],
            sse=sse[k].item() / n_images,
            sse_mean=sse_mean[k].item() / n_images,
            kl_per_dim=kl_per_dim[k].tolist(),
            active_units=int(active[k].item()),
            x_var=x_vars[k].item(),
            input_dim=arch.input_dim,
        )
        for k in range(n_runs)
    ]


def metrics(
    config: Any,
    *,
    sse: float,
    sse_mean: float,
    kl_per_dim: list[float],
    active_units: int,
    x_var: float,
    input_dim: int,
) -> dict[str, Any]:
    """All columns that follow from a run's squared error and KL."""
    z_dim, kl = len(kl_per_dim), sum(kl_per_dim)
    per_dim = torch.tensor([config.objective.kind == "per_dim"])
    weights = objective.weights(torch.tensor([x_var], dtype=torch.float64).log(), per_dim, input_dim, z_dim)
    terms = torch.tensor([[sse], [kl], [config.beta.value]], dtype=torch.float64)  # (3, 1)
    value = objective.loss(terms[0], terms[1], terms[2], weights).item()
    variance = objective.decoder_variance(config, x_var, input_dim, z_dim)
    return {
        "sse": sse,
        "sse_mean": sse_mean,
        "kl": kl,
        "kl_per_dim": kl_per_dim,
        "active_units": active_units,
        "loss": value,
        **conventions.normalised_elbo(sse, kl, variance, input_dim),
        **conventions.study_columns(sse, kl, input_dim, z_dim),
    }
