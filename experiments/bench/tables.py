"""The tables of the benchmark."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experiments.bench.baselines import dataloader_loop, plain_loop
from experiments.bench.workloads import (
    BATCH,
    Workload,
    as_a_sweep,
    products,
    random_images,
    settings_of,
    side_by_side,
    stacked,
)
from experiments.progress import Steps

EPOCH = 60_000  # images; times in the report are of such an epoch
SWEEP = 16  # runs
GPU_SIZES = (1, 16, 64, 256)  # runs in a stack


@dataclass(frozen=True)
class Row:
    """A ratio of two rates; below the goal but not below `least`, if given, it is acceptable."""

    what: str
    value: float
    goal: float
    least: float = math.inf

    @property
    def met(self) -> str:
        return "yes" if self.value >= self.goal else "acceptable" if self.value >= self.least else "no"


def timed(workload: Workload) -> float:
    """Seconds per image, over all runs."""
    begun = time.perf_counter()
    images = workload()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / images


def interleaved(what: str, workloads: Mapping[str, Workload], repetitions: int) -> dict[str, float]:
    """Seconds per image of each workload: medians of repetitions that take turns, after one to warm up."""
    progress = Steps(f"timings: {what}", len(workloads) * (repetitions + 1))
    times: dict[str, list[float]] = {name: [] for name in workloads}
    for _ in range(repetitions + 1):
        for name, workload in workloads.items():
            times[name].append(timed(workload))
            progress.step()
    progress.close()
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def training(repetitions: int, n_images: int = 6400) -> tuple[dict[str, float], list[Row]]:
    """Training on the CPU: seconds per epoch and run of each way to do it, and what is asked of them."""
    # First, because what the many models of the next table leave in memory slows a convolution down by a tenth.
    conv = _conv(repetitions, n_images // 5)
    mlp = _mlp(repetitions, n_images)
    own, alone = conv.values()
    _, plain, one, _, sweep, limit = mlp.values()
    rows = [
        Row(f"sweep of {SWEEP} mlp runs: share of the rate of its matrix products alone", limit / sweep, 0.65, 0.56),
        Row("one mlp run: rate compared with the plain loop", plain / one, 1.0),
        Row("one conv run: share of the rate of its matrix products alone", alone / own, 0.85),
    ]
    return {name: EPOCH * seconds for name, seconds in (mlp | conv).items()}, rows


def _mlp(repetitions: int, n_images: int) -> dict[str, float]:
    images, labels = random_images("mlp", n_images)
    configs = [settings_of("mlp", seed) for seed in range(SWEEP)]
    pieces, workers = as_a_sweep(SWEEP)
    steps = -(-n_images // BATCH)
    workloads = {
        "loop over a DataLoader, Adam": dataloader_loop(images, labels),
        "plain loop over tensors, fused Adam": plain_loop(images, labels),
        "one run": stacked(configs[:1], images, labels),
        f"{SWEEP} runs as one program (vmap)": stacked(configs, images, labels),
        f"{SWEEP} runs as a sweep": side_by_side([stacked(piece, images, labels) for piece in pieces], workers),
        "matrix products of the sweep alone": side_by_side([products("mlp", len(p), steps) for p in pieces], workers),
    }
    return interleaved("mlp", workloads, repetitions)


def _conv(repetitions: int, n_images: int) -> dict[str, float]:
    images, labels = random_images("conv", n_images)
    workloads = {
        "conv, one run": stacked([settings_of("conv")], images, labels),
        "conv, matrix products alone": products("conv", 1, -(-n_images // BATCH)),
    }
    return interleaved("conv", workloads, repetitions)


def gpu(repetitions: int, n_images: int = 6400, sizes: Sequence[int] = GPU_SIZES) -> Iterator[dict[str, Any]]:
    """Training on the GPU: seconds per epoch and run of two plain loops, of eager steps and of CUDA graphs.

    Args:
        n_images: of a timing; larger stacks have fewer, so that no timing has more than 16 times as many over all runs.

    Yields:
        One row per network and stack size; its times are None where the memory is too small. None without a GPU.
    """
    if not torch.cuda.is_available():
        return
    device = torch.device("cuda")
    for kind in ("mlp", "conv"):
        for k in sizes:
            images, labels = random_images(kind, max(4 * BATCH, n_images * min(k, 16) // k))
            configs = [settings_of(kind, seed) for seed in range(k)]
            workloads: dict[str, Workload] = {}
            try:
                workloads["loader"] = dataloader_loop(images, labels, kind, device)
                workloads["plain"] = plain_loop(images, labels, kind, device)
                workloads["eager"] = stacked(configs, images, labels, device, captured=False)
                workloads["graph"] = stacked(configs, images, labels, device)
                t = interleaved(f"{kind}, {k} runs on the GPU", workloads, repetitions)
                yield {"kind": kind, "runs": k, "seconds": {name: EPOCH * v for name, v in t.items()}}
            except torch.OutOfMemoryError:
                yield {"kind": kind, "runs": k, "seconds": None}
            finally:
                workloads.clear()  # their memory is needed for the next row
                torch.cuda.empty_cache()
