"""The one training loop, for one run and for K runs as one program.

All random numbers depend only on the run's seed, the epoch and the step, so a run can be resumed at any step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vae import optimizers
from vae.config import Config
from vae.model import Architecture
from vae.objectives import beta_schedule
from vae.seeding import generator, seed_of
from vae.stack import Stack

BLOCK = 2**18  # about how many random numbers of a run are drawn at once: a megabyte


def pixels(images: Tensor, index: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """The images picked by index, (K, B), as floats in [0, 1]: uint8 (N, D) -> (K, B, C, H, W)."""
    picked = images.index_select(0, index.flatten()).view(*index.shape, *image_shape)
    return picked.to(torch.float32).div_(255)


class Noise:
    """The random numbers of the steps of one epoch, drawn a block of steps at a time.

    Args:
        batch_size: images per step. A shorter last step uses the first numbers of a whole one.
    """

    def __init__(self, stack: Stack, batch_size: int) -> None:
        self.stack, self.shapes = stack, stack.model.noise_shapes(stack.objective, batch_size)
        self.steps = max(1, BLOCK // sum(math.prod(shape) for _, shape in self.shapes.values()))  # of a block
        self.block, self.drawn = -1, {}

    def of(self, step: int, n_images: int) -> dict[str, Tensor]:
        """The numbers of a step, for as many images as it has. Each tensor has a leading run axis."""
        block, i = divmod(step, self.steps)
        if block != self.block:
            self.block, self.drawn = block, self._draw(block)
        # After the run and step axes, images are on the second axis of z, and on the first axis of the others.
        return {
            name: value[:, i, :, :n_images] if name == "z" else value[:, i, :n_images]
            for name, value in self.drawn.items()
        }

    def _draw(self, block: int) -> dict[str, Tensor]:
        stack, drawn = self.stack, {name: [] for name in self.shapes}
        for config in stack.configs:
            gen = generator(config.seed, f"noise {stack.epoch}/{block}", stack.device)
            for name, (kind, shape) in self.shapes.items():
                draw = torch.randn if kind == "normal" else torch.rand
                drawn[name].append(draw(self.steps, *shape, generator=gen, device=stack.device))
        return {name: torch.stack(values) if len(values) > 1 else values[0][None] for name, values in drawn.items()}


def train_step(
    stack: Stack,
    names: tuple[str, ...],
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    schedule: Tensor,
    *noise: Tensor,
) -> None:
    """Takes one training step of every run and adds its values to the sums of the epoch.

    It reads no value back from the device and changes only the stack's own tensors, so that it can be captured as a
    CUDA graph (vae/capture.py).

    Args:
        names: names of the random numbers.
        images, labels: all images and labels, as in train_epoch.
        index: images of the batch, (K, B).
        schedule: beta, and the share of the training that is done, (K, 2).
        noise: random numbers in the order of `names`, each with a run axis.
    """
    x, y = pixels(images, index, stack.arch.image_shape), labels[index]  # (K, B, C, H, W), (K, B)
    values = stack.losses(x, y, dict(zip(names, noise, strict=True)), schedule)  # (K, 3)
    stack.zero_grad()
    values[:, 0].sum().backward()
    stack.optimizer_step()
    # Weighted by the number of images, so that a short last batch counts for less.
    stack.totals.add_(values.detach().t(), alpha=index.shape[1])


def train_epoch(stack: Stack, images: Tensor, labels: Tensor, pause: Callable[[int], bool]) -> bool:
    """Trains every run of the stack for the rest of its current epoch, and adds a row to each run's history.

    No step waits for the device: the sums of the epoch are read at its end. On a GPU, a step is captured once as a CUDA
    graph and then replayed.

    Args:
        images: (N, D) uint8, on the stack's device.
        labels: (N,) int64, likewise.
        pause: called after each step with the number of images in that step, over all runs. If it returns True,
            training stops there: `stack.state` then holds the position, and train_epoch continues from it.

    Returns:
        True at the end of the epoch, False if it was stopped before.
    """
    n_images, trainer = len(images), stack.trainer
    steps = math.ceil(n_images / trainer.batch_size)
    order = torch.stack([
        torch.randperm(n_images, generator=generator(c.seed, f"order {stack.epoch}", stack.device), device=stack.device)
        for c in stack.configs
    ])  # (K, N)  # fmt: skip
    first, total = stack.epoch * steps, trainer.epochs * steps  # steps before this epoch, steps of the training
    here = slice(first, first + steps)
    betas = np.stack([beta_schedule(c.beta, trainer.epochs, steps)[here] for c in stack.configs], axis=1)  # (S, K)
    progress = np.broadcast_to((np.arange(total)[here] / max(1, total - 1))[:, None], betas.shape)
    schedule = torch.tensor(np.stack([betas, progress], axis=2), dtype=torch.float32).to(stack.device)  # (S, K, 2)

    def rate(step: int) -> float:
        return optimizers.learning_rate(trainer, step, total, steps)

    noise = Noise(stack, trainer.batch_size)
    one_step = functools.partial(train_step, stack, tuple(noise.shapes))
    own_modules = stack.arch.network["kind"] == "custom" and stack.device.type == "cpu"
    stack.model.train()
    for step in range(stack.step, steps):
        index = order[:, step * trainer.batch_size : (step + 1) * trainer.batch_size]  # (K, B)
        if trainer.lr_schedule != "constant":
            optimizers.set_learning_rate(stack.optimizer, rate(first + step))
        if own_modules:  # they may draw from torch's global generator, as dropout does
            torch.manual_seed(seed_of(stack.configs[0].seed, f"step {first + step}"))
        drawn = noise.of(step, index.shape[1])
        stack.call(one_step, (images, labels), (index, schedule[step], *drawn.values()))
        stack.step = step + 1
        if pause(index.numel()) and stack.step < steps:
            return False

    means = (stack.totals / n_images).tolist()
    for k in range(stack.n_runs):
        log_x_var = stack.log_x_var(k)
        row = {"epoch": stack.epoch + 1, "train_sse": means[1][k], "train_kl": means[2][k], "train_loss": means[0][k]}
        row |= {"beta": float(betas[-1, k])} | ({} if log_x_var is None else {"x_var": math.exp(log_x_var)})
        stack.history[k].append(row | {"lr": rate(first + steps - 1)})
    stack.epoch += 1
    stack.step = 0
    stack.totals.zero_()
    return True


def diverged(stack: Stack) -> list[int]:
    """The runs whose last loss or any of whose parameters is not finite."""
    finite = torch.ones(stack.n_runs, dtype=torch.bool, device=stack.device)
    for p in stack.parameters.values():
        finite &= p.detach().reshape(stack.n_runs, -1).isfinite().all(dim=1)
    losses = [history[-1]["train_loss"] if history else 0.0 for history in stack.history]
    return [k for k, ok in enumerate(finite.tolist()) if not ok or not math.isfinite(losses[k])]


def why_not_stackable(config: Config, arch: Architecture, n_train: int) -> str | None:
    """Why runs like this one cannot train as one program; None if they can. Tried on two images without values."""
    if config.optimizer["kind"] not in optimizers.ELEMENTWISE:
        return f"{config.optimizer['kind']} mixes the numbers of a tensor"
    try:
        with torch.device("meta"):
            stack = Stack([config, config], [arch, arch], n_train, torch.device("meta"))
            shapes = stack.model.noise_shapes(stack.objective, 2)
            noise = {name: torch.zeros(2, *shape) for name, (_, shape) in shapes.items()}
            x, y = torch.zeros(2, 2, *arch.image_shape), torch.zeros(2, 2, dtype=torch.int64)
            stack.losses(x, y, noise, torch.zeros(2, 2))[:, 0].sum().backward()
    except Exception as error:  # anything that a module of the user's does not support
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None
