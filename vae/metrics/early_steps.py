"""The first steps of a run's training: KL and gradients at each, which show why a run dies.

Training keeps one row per epoch, and most runs that die do so within the first hundred steps. So these steps are
trained again, from the run's settings and seed. On a CPU they are the steps of the run itself, because all random
numbers depend only on the seed, the epoch and the step. A GPU draws other random numbers.
"""

from __future__ import annotations

import math

from vae.metrics.registry import Family, Result, Subject

STEPS = 200
NETWORKS = ("encoder", "decoder")

early_steps = Family("early_steps", version=1, arrays=True, on_request=True)


@early_steps.computes()
def first_steps(subject: Subject) -> Result:
    """kl, encoder_gradient and decoder_gradient, (S,) each: mean KL of the batch, in nats, and norms of the gradients.

    S is STEPS, or less if the training has fewer. The norms are those after clipping. There are no arrays for a network
    of the user's own: in training, its modules may draw from torch's global generator.
    """
    import numpy as np
    import torch

    from vae.stack import Stack
    from vae.train import train_epoch

    config, labels = subject.config, subject.data.train_y  # (N,)
    images = subject.data.train_x.flatten(1)  # (N, D)
    if config.model.kind == "custom":
        return Result()
    stack = Stack([config], [subject.model.arch], len(images), torch.device("cpu"))
    rows: list[list[float]] = []
    done = 0.0  # sum of the KL over the earlier steps of the epoch

    def record(n_images: int) -> bool:
        nonlocal done
        total = stack.totals[2, 0].item()
        kl, done = (total - done) / n_images, total
        squares = dict.fromkeys(NETWORKS, 0.0)
        for name, p in stack.parameters.items():
            if (network := name.partition(".")[0]) in squares and p.grad is not None:
                squares[network] += p.grad.square().sum().item()
        rows.append([kl, *(math.sqrt(squares[name]) for name in NETWORKS)])
        return len(rows) == STEPS

    with torch.enable_grad():
        while len(rows) < STEPS and stack.epoch < config.trainer.epochs:
            done = 0.0
            train_epoch(stack, images, labels, record)
    kl, *gradients = np.array(rows).T  # (S,) each
    return Result(arrays={"kl": kl} | {f"{n}_gradient": g for n, g in zip(NETWORKS, gradients, strict=True)})
