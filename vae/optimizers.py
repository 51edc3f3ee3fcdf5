"""Optimizers, learning rates at each step, and gradient clipping.

An optimizer is a class of torch.optim, given by its name, with the arguments of that class:

    python run.py optimizer=AdamW optimizer.weight_decay=0.01 trainer.lr=0.002

The learning rate, its schedule and gradient clipping are settings of the trainer. For a class that has no file in
conf/optimizer, use `optimizer.kind=Name`. LBFGS, Muon and SparseAdam cannot be used.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae.config import ConfigError, Trainer

OURS = ("params", "lr", "fused", "foreach", "capturable", "differentiable", "maximize")  # the program sets these
# LBFGS evaluates the loss several times per step, SparseAdam needs sparse gradients, and Muon takes only matrices.
UNSUITABLE = ("LBFGS", "Muon", "SparseAdam")
# They update each number from its own gradients only, so runs can share one tensor.
ELEMENTWISE = (
    "ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"
)  # fmt: skip


def known() -> list[str]:
    """The optimizers of torch.optim that can be used, by name."""
    found = [name for name in dir(torch.optim) if _is_usable(getattr(torch.optim, name))]
    return [name for name in found if name not in ("Optimizer", *UNSUITABLE)]


def _is_usable(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)


def arguments_of(kind: str) -> dict[str, Any]:
    """The arguments that can be set, with their defaults."""
    signature = inspect.signature(getattr(torch.optim, kind))
    return {name: p.default for name, p in signature.parameters.items() if name not in (*OURS, "self")}


def check(optimizer: dict[str, Any]) -> None:
    """Checks a run's optimizer.

    Raises:
        ConfigError: for an unknown class, argument or value.
    """
    kind = str(optimizer["kind"])
    if kind not in known():
        raise ConfigError(f"optimizer={kind}: not an option; allowed: {', '.join(known())}")
    allowed = arguments_of(kind)
    for name, value in optimizer.items():
        if name != "kind" and name not in allowed:
            raise ConfigError(f"optimizer.{name}={value}: {kind} does not use it; allowed: {', '.join(allowed)}")
    tried = torch.zeros(2, 2, requires_grad=True)
    tried.grad = torch.zeros(2, 2)
    try:
        make(optimizer, [{"params": [tried]}], 1e-3, torch.device("cpu")).step()
    except Exception as error:  # torch checks little, and each class checks differently
        given = " ".join(f"optimizer.{name}={value}" for name, value in optimizer.items() if name != "kind")
        reason = " ".join(str(error).split())
        raise ConfigError(f"optimizer={kind} {given}: {reason}; allowed: see torch.optim.{kind}") from None


def make(
    optimizer: dict[str, Any], groups: Sequence[dict[str, Any]], lr: float, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of a stack.

    Args:
        optimizer: its class, as `kind`, and the arguments.
        groups: parameters; `factor` multiplies the learning rate of a group.
    """
    found = getattr(torch.optim, str(optimizer["kind"]))
    taken = inspect.signature(found).parameters
    own = {key: tuple(v) if isinstance(v, list) else v for key, v in optimizer.items() if key != "kind"}
    if "fused" in taken and (device.type == "cpu" or optimizer["kind"] != "Adagrad"):
        own["fused"] = True
    if device.type == "cuda" and "capturable" in taken:
        own["capturable"] = True
        # A captured step reads the learning rate from this tensor.
        groups = [{**group, "lr": torch.tensor(lr * group.get("factor", 1.0), device=device)} for group in groups]
    else:
        groups = [{**group, "lr": lr * group.get("factor", 1.0)} for group in groups]
    return found(list(groups), **own)


def capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step can be part of a CUDA graph."""
    return bool(optimizer.defaults.get("capturable"))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of the next step; each group multiplies it by its factor."""
    for group in optimizer.param_groups:
        rate = lr * group.get("factor", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def learning_rate(trainer: Trainer, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning rate at a training step, counted from 0 over all epochs.

    `cosine` falls from `lr` at the first step to 0 at the last one (Loshchilov and Hutter 2017). `warmup_cosine` first
    grows linearly over `warmup_epochs` and reaches `lr` at their end.

    Args:
        steps: number of steps of the whole training.
    """
    if trainer.lr_schedule == "constant" or steps == 1:
        return trainer.lr
    warm = 0
    if trainer.lr_schedule == "warmup_cosine":
        assert trainer.warmup_epochs is not None
        warm = min(round(trainer.warmup_epochs * steps_per_epoch), steps - 1)
        if step < warm:
            return trainer.lr * (step + 1) / (warm + 1)
    return trainer.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - 1 - warm)))


def clip(grads: Sequence[Tensor], max_norm: float, stacked: bool) -> None:
    """Scales the gradients of each run in place, so that their norm is at most `max_norm` (Pascanu et al. 2013).

    Args:
        stacked: whether the gradients have a leading run axis.
    """
    if stacked:
        square = sum(grad.square().reshape(len(grad), -1).sum(dim=1) for grad in grads)  # (K,)
    else:
        square = sum(grad.square().sum() for grad in grads)
    assert isinstance(square, Tensor)
    scale = (max_norm / (square.sqrt() + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale.view(-1, *[1] * (grad.ndim - 1)) if stacked else scale)
