"""Which runs are trained together: how many as one program, and how many programs at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from experiments.plan import Run
from experiments.settings import Settings, result_settings
from vae.model import n_parameters

CARRIED = ("seed", "beta.", "x_var.value")  # settings that a stack has for each of its runs
GPU_STACK = 1024
MAX_WORKERS = 8  # stacks trained at once on a CPU: about a tenth of a step holds Python's lock


def device_of(config: Settings) -> torch.device:
    """The device that a run is trained on."""
    name = config.trainer.device
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def phases(runs: Sequence[Run], threads: int) -> Iterator[tuple[int, list[Run]]]:
    """How many programs to train at once, each with its share of the threads, and which runs.

    Two runs with one thread each train faster than one after the other with two threads each. If all arithmetic is
    matrix products, the numbers are the same bit by bit. The last bits of a convolution's gradient depend on the number
    of threads, and what a module of the user's own does is not known: such runs take all threads, alone as in a sweep.
    """
    side_by_side = [r for r in runs if device_of(r.config).type == "cpu" and r.config.model.kind in ("mlp", "linear")]
    rest = [run for run in runs if run not in side_by_side]
    if side_by_side:
        yield max(1, min(threads, len(side_by_side), MAX_WORKERS)), side_by_side
    if rest:
        yield 1, rest


def key(run: Run) -> tuple[Any, ...]:
    """What runs of one stack have in common: all settings but those that a stack has for each run."""
    settings = {k: v for k, v in result_settings(run.config).items() if not k.startswith(("dataset.", *CARRIED))}
    t = run.config.trainer
    return repr(sorted(settings.items())), run.data.content_hash, t.device, t.stack_size


def stacks(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Groups the runs that can be one program, in pieces of the stack size. On a CPU each run is a program."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    for group in groups.values():
        size = group[0].config.trainer.stack_size or min(len(group), automatic_stack_size(group[0]))
        pieces = -(-len(group) // size)
        size = -(-len(group) // pieces)  # even pieces: 17 runs at 16 per stack are 9 and 8, not 16 and 1
        for start in range(0, len(group), size):
            yield group[start : start + size]


def run_bytes(run: Run) -> int:
    """A rough upper estimate of the memory that one run of a stack needs in training."""
    arch, n, m = run.arch, len(run.data.train_x), run.config.model
    layers = 4 * (arch.input_dim + sum(m.hidden or ()) + 2 * arch.z_dim)
    _, h, w = arch.image_shape
    per_level = 1 + 4 * (m.blocks or 0)
    layers += 4 * per_level * sum(c * (h >> i + 1) * (w >> i + 1) for i, c in enumerate(m.channels or ()))
    samples = run.config.objective.samples or 1
    return 4 * (5 * n_parameters(arch) + 4 * run.config.trainer.batch_size * samples * layers + n)


def automatic_stack_size(run: Run) -> int:
    """On a GPU as many runs as fit into half of the free memory; on a CPU a stack gains nothing."""
    if device_of(run.config).type != "cuda":
        return 1
    return max(1, min(GPU_STACK, int(0.5 * torch.cuda.mem_get_info()[0] / run_bytes(run))))
