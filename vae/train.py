"""The one training loop. A single run is a stack of one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vae import objective
from vae.stack import Stack


def pixels(images: Tensor, index: Tensor) -> Tensor:
    """The images picked by index, (K, B), as floats in [0, 1]: uint8 (N, D) -> (K, B, D)."""
    picked = images.index_select(0, index.flatten()).view(*index.shape, images.shape[1])
    return picked.to(torch.float32).div_(255)


def train_step(stack: Stack, images: Tensor, labels: Tensor, index: Tensor, noise: Tensor, beta: Tensor) -> None:
    """One training step of every run, and its share of the sums of the epoch.

    It draws no random numbers, reads no value of a tensor and changes only the stack's own tensors, so that it can be
    captured as a CUDA graph (vae/capture.py).

    Args:
        images, labels: all of them, as in train_epoch.
        index: images of the batch, (K, B).
        noise: standard normal, (K, B, k).
        beta: weight of the KL, (K,).
    """
    x, y = pixels(images, index), labels[index]  # (K, B, D), (K, B)
    mu, logvar = stack.model.encode(x, y)  # (K, B, k) each
    z = mu + (0.5 * logvar).exp() * noise  # (K, B, k)
    x_hat = stack.model.decode(z, y)  # (K, B, D)
    sse = objective.squared_error(x, x_hat).mean(dim=1)  # (K,)
    kl = objective.gaussian_kl(mu, logvar).sum(dim=-1).mean(dim=1)  # (K,)
    losses = objective.loss(sse, kl, beta, stack.loss_weights())  # (K,)
    stack.zero_grad()
    losses.sum().backward()
    stack.optimizer_step()
    # Weighted by the number of images, so that a short last batch counts for what it is.
    stack.totals += torch.stack([sse, kl, losses]).detach().double() * index.shape[1]


def train_epoch(stack: Stack, images: Tensor, labels: Tensor, pause: Callable[[int], bool]) -> bool:
    """Trains every run of the stack for the rest of its current epoch, and adds a row to each run's history.

    Nothing here waits for the device: the sums of the epoch are read at its end. On a GPU a step is captured as a CUDA
    graph once and replayed from then on.

    Args:
        images: (N, D) uint8, on the stack's device.
        labels: (N,) int64, likewise.
        pause: called after each step with the images seen in it over all runs. If it returns True, the epoch is left
            where it stands: `stack.state` then holds the position, and train_epoch continues from it.

    Returns:
        True at the end of the epoch, False if it was left before.
    """
    n_images = len(images)
    n_runs, arch, trainer = stack.n_runs, stack.arch, stack.configs[0].trainer
    steps = math.ceil(n_images / trainer.batch_size)
    for gen, start in zip(stack.generators, stack.epoch_start, strict=True):
        gen.set_state(start)
    order = torch.stack(
        [torch.randperm(n_images, generator=g, device=stack.device) for g in stack.generators]
    )  # (K, N)
    noise = torch.stack(
        [torch.randn(n_images, arch.z_dim, generator=g, device=stack.device) for g in stack.generators]
    )  # (K, N, k)
    schedules = [objective.beta_schedule(c.beta, trainer.epochs, steps) for c in stack.configs]
    first, total = stack.epoch * steps, trainer.epochs * steps  # steps before this epoch, steps of the training
    here = slice(first, first + steps)
    betas = torch.tensor(np.stack([s[here] for s in schedules], axis=1), dtype=torch.float32).to(stack.device)  # (S, K)

    one_step = functools.partial(train_step, stack)
    for step in range(stack.step, steps):
        batch = slice(step * trainer.batch_size, (step + 1) * trainer.batch_size)
        index = order[:, batch]  # (K, B)
        stack.set_learning_rates(first + step, total)
        stack.call(one_step, (images, labels), (index, noise[:, batch], betas[step]))
        stack.step = step + 1
        if pause(index.numel()) and stack.step < steps:
            return False

    means = (stack.totals / n_images).tolist()
    x_vars = stack.log_x_var.detach().exp().tolist()
    for k in range(n_runs):
        row = {"epoch": stack.epoch + 1, "train_sse": means[0][k], "train_kl": means[1][k], "train_loss": means[2][k]}
        row |= {"beta": betas[-1, k].item(), "x_var": x_vars[k], "lr": stack.learning_rate(k, first + steps - 1, total)}
        stack.history[k].append(row)
    stack.epoch += 1
    stack.step = 0
    stack.totals.zero_()
    stack.epoch_start = [g.get_state() for g in stack.generators]
    return True


def diverged(stack: Stack) -> list[int]:
    """The runs whose last epoch has a loss, or whose parameters have a value, that is not finite."""
    finite = torch.ones(stack.n_runs, dtype=torch.bool, device=stack.device)
    for p in stack.parameters().values():
        finite &= p.detach().reshape(stack.n_runs, -1).isfinite().all(dim=1)
    losses = [history[-1]["train_loss"] if history else 0.0 for history in stack.history]
    return [k for k, ok in enumerate(finite.tolist()) if not ok or not math.isfinite(losses[k])]
