"""What is timed: our training loop, alone, stacked and as a sweep does it, and the matrix products of a step alone.

A workload is a function that trains for a while and returns the number of images seen, over all runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from experiments.plan import plan
from experiments.settings import Settings
from experiments.stacking import phases, stacks
from experiments.training import set_up_torch
from vae.capture import eagerly
from vae.config import Config
from vae.model import resolve
from vae.networks import product
from vae.stack import Stack
from vae.train import train_epoch

Workload = Callable[[], int]

BATCH = 128
Z_DIM = 100
SHAPES = {"mlp": (1, 28, 28), "conv": (3, 32, 32)}
CPU = torch.device("cpu")
# Rows, inner and columns of each layer's product. The convolutions are products of patches: rows are the positions of a
# batch, 16·channels in, channels out; a transposed convolution is the mirror.
PRODUCTS = {
    "mlp": [(BATCH, 834, 400), (BATCH, 400, 2 * Z_DIM), (BATCH, Z_DIM + 50, 400), (BATCH, 400, 784)],
    "conv": [
        (BATCH * 256, 48, 32),
        (BATCH * 64, 512, 64),
        (BATCH * 16, 1024, 128),
        (BATCH, 2048, 2 * Z_DIM),
        (BATCH, Z_DIM, 2048),
        (BATCH * 16, 128, 1024),
        (BATCH * 64, 64, 512),
        (BATCH * 256, 32, 48),
    ],
}


def settings_of(kind: str, seed: int = 0) -> Settings:
    """The conditional VAE of `mlp` (784+50, 400, 100, 400, 784) or the unconditional one of `conv`."""
    config = Settings(seed=seed)
    config.z_dim.value = Z_DIM
    config.trainer.epochs = 10_000  # never reached
    if kind == "conv":
        config.model.kind, config.model.hidden, config.model.channels = "conv", None, [32, 64, 128]
        config.label_placement.kind = "none"
        config.objective.kind = "per_dim"
    return config


def random_images(kind: str, n: int) -> tuple[Tensor, Tensor]:
    """Images (n, D) uint8 and labels (n,) of ten classes."""
    channels, height, width = SHAPES[kind]
    gen = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, channels * height * width), generator=gen, dtype=torch.uint8)
    return images, torch.randint(10, (n,), generator=gen)


def stacked(
    configs: Sequence[Config], images: Tensor, labels: Tensor, device: torch.device = CPU, captured: bool = True
) -> Workload:
    """An epoch of our training loop for a stack of runs.

    Args:
        captured: on a GPU, whether steps may be replayed as CUDA graphs.
    """
    archs = [resolve(config, SHAPES[config.model.kind], 10, []) for config in configs]
    stack = Stack(configs, archs, len(images), device)
    images, labels = images.to(device), labels.to(device)
    if not captured:
        stack.call = eagerly

    def epoch() -> int:
        train_epoch(stack, images, labels, lambda n: False)
        return len(images) * len(configs)

    return epoch


def as_a_sweep(n_runs: int) -> tuple[list[list[Config]], int]:
    """The stacks that a sweep of mlp runs is trained in on this machine, and how many of them at once."""
    with tempfile.TemporaryDirectory() as folder:
        configs = [settings_of("mlp", seed) for seed in range(n_runs)]
        for config in configs:
            config.output_dir = folder  # nothing but facts of the embedded digits is written there
        runs = plan(configs)
    ((workers, together),) = phases(runs, torch.get_num_threads())
    return [[run.config for run in piece] for piece in stacks(together)], workers


def side_by_side(parts: Sequence[Workload], workers: int) -> Workload:
    """Several workloads, as many at a time as there are workers, each with its share of the threads."""
    pool, threads = ThreadPoolExecutor(workers), torch.get_num_threads()

    def one(part: Workload) -> int:
        set_up_torch(Settings(), max(1, threads // workers))
        return part()

    def all_parts() -> int:
        images = sum(pool.map(one, parts))
        torch.set_num_threads(threads)  # what a worker sets holds for new threads too
        return images

    return all_parts


def products(kind: str, n_runs: int, steps: int) -> Workload:
    """The matrix products of some training steps alone, by the routine of the layers, one call per run."""
    gen = torch.Generator().manual_seed(0)
    layers = [
        [torch.rand(n_runs, *shape, generator=gen) for shape in ((rows, inner), (inner, columns), (rows, columns))]
        for rows, inner, columns in PRODUCTS[kind]
    ]

    def all_steps() -> int:
        for _ in range(steps):
            for i, (x, w, grad) in enumerate(layers):  # (K, rows, inner), (K, inner, columns), (K, rows, columns)
                for k in range(n_runs):
                    product(x[k], w[k].t())
                    product(x[k].t(), grad[k].t())
                    if i > 0:  # the images need no gradient
                        product(grad[k], w[k])
        return steps * BATCH * n_runs

    return all_steps
