"""Which runs are trained together: how many as one program, and how many programs at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from experiments.plan import Run
from experiments.settings import Settings
from vae.model import n_parameters

CPU_STACK = 16  # more runs at once gain nothing on a CPU, and all of them are lost if memory runs out
GPU_STACK = 1024
MAX_WORKERS = 8  # stacks trained at once on a CPU: about a tenth of a step holds Python's lock


def device_of(config: Settings) -> torch.device:
    """The device that a run is trained on."""
    name = config.trainer.device
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def workers_for(runs: Sequence[Run], threads: int) -> int:
    """How many stacks to train at once, each with its share of the threads.

    Two stacks with one thread each are a quarter faster than one with two threads. Where all arithmetic is matrix
    products, the numbers are the same bit by bit. The last bits of a convolution's gradient depend on the number of
    threads, so such runs take all threads, alone as in a sweep.
    """
    if any(device_of(run.config).type != "cpu" or run.arch.kind == "conv" for run in runs):
        return 1
    return max(1, min(threads, len(runs), MAX_WORKERS))


def stacks(runs: Sequence[Run], workers: int = 1) -> Iterator[list[Run]]:
    """Groups the runs of one shape and one length of training, in pieces of the stack size.

    Args:
        workers: stacks trained at once. A piece is at most half of a worker's share of all runs, so that no worker is
            idle for long.
    """
    share = len(runs) if workers == 1 else -(-len(runs) // (2 * workers))
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        t = run.config.trainer
        key = (run.arch, run.data.content_hash, t.epochs, t.batch_size, t.tf32, t.device, t.stack_size)
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        size = group[0].config.trainer.stack_size or min(share, automatic_stack_size(group[0], workers))
        pieces = -(-len(group) // size)
        size = -(-len(group) // pieces)  # even pieces: 17 runs at 16 per stack are 9 and 8, not 16 and 1
        for start in range(0, len(group), size):
            yield group[start : start + size]


def run_bytes(run: Run) -> int:
    """A rough upper estimate of the memory that one run of a stack needs in training."""
    arch, n = run.arch, len(run.data.train_x)
    layers = 4 * (arch.input_dim + sum(arch.hidden) + 2 * arch.z_dim)
    if arch.kind == "conv":
        _, h, w = arch.image_shape
        layers += 4 * sum(c * (h >> i + 1) * (w >> i + 1) for i, c in enumerate(arch.channels))
    return 4 * (5 * n_parameters(arch) + 4 * run.config.trainer.batch_size * layers + n * (arch.z_dim + 2))


def automatic_stack_size(run: Run, workers: int) -> int:
    """As many runs as fit into half of the free memory, in all workers together; on a CPU at most CPU_STACK."""
    if device_of(run.config).type == "cuda":
        free, limit = torch.cuda.mem_get_info()[0], GPU_STACK
    else:
        free, limit = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), CPU_STACK
    return max(1, min(limit, int(0.5 * free / workers / run_bytes(run))))
