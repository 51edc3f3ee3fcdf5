"""Optimizers, learning rates and clipping against torch.optim and torch.nn.utils."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vae import optimizers
from vae.config import ConfigError, Trainer

CPU = torch.device("cpu")
CENTRE = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


def distance(parameter: Tensor) -> Tensor:
    return (parameter - CENTRE).square().sum()


def start(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def made(optimizer: dict[str, Any], *groups: dict[str, Any], lr: float = 1e-2) -> torch.optim.Optimizer:
    return optimizers.make(optimizer, groups, lr, CPU)


def test_the_known_optimizers_are_those_of_torch_that_take_one_step_for_one_gradient():
    known = optimizers.known()
    assert {"Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam", "Adafactor"} <= set(known)
    assert not {"Optimizer", "LBFGS", "SparseAdam", "Muon"} & set(known)
    assert set(optimizers.ELEMENTWISE) <= set(known)


@pytest.mark.parametrize("kind", optimizers.known())
def test_every_optimizer_makes_the_steps_of_torch_and_reduces_a_quadratic(kind: str):
    ours, theirs = start(2, 2), start(2, 2)
    optimizer = made({"kind": kind}, {"params": [ours]})
    reference = getattr(torch.optim, kind)([theirs], lr=1e-2)
    values = [distance(ours).item()]
    for _ in range(5):
        for parameter, one in ((ours, optimizer), (theirs, reference)):
            one.zero_grad()
            distance(parameter).backward()
            one.step()
        values.append(distance(ours).item())
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert all(after < before for before, after in itertools.pairwise(values))


@pytest.mark.parametrize("kind", optimizers.ELEMENTWISE)
def test_an_elementwise_optimizer_updates_runs_in_one_tensor_as_it_does_alone(kind: str):
    together = start(3, 2, 2)
    alone = [together[k].detach().clone().requires_grad_() for k in range(3)]
    scales = torch.tensor([1.0, 1e-3, 50.0])
    optimizer, others = (
        made({"kind": kind}, {"params": [together]}),
        [made({"kind": kind}, {"params": [one]}) for one in alone],
    )
    for _ in range(4):
        optimizer.zero_grad()
        sum((scales[k] * distance(together[k]) for k in range(3)), torch.zeros(())).backward()
        optimizer.step()
        for scale, parameter, other in zip(scales, alone, others, strict=True):
            other.zero_grad()
            (scale * distance(parameter)).backward()
            other.step()
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-6, atol=1e-7)


def test_adafactor_is_not_elementwise():
    assert "Adafactor" in optimizers.known()
    assert "Adafactor" not in optimizers.ELEMENTWISE


def test_arguments_reach_the_optimizer():
    optimizer = made({"kind": "AdamW", "betas": [0.8, 0.95], "weight_decay": 0.3}, {"params": [start(2, 2)]}, lr=7e-3)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["betas"], group["weight_decay"], group["lr"]) == ((0.8, 0.95), 0.3, 7e-3)


def test_a_factor_multiplies_the_learning_rate_of_its_group():
    one, other = start(2, 2), start(2, 2, seed=1)
    before = one.detach().clone(), other.detach().clone()
    optimizer = made({"kind": "SGD"}, {"params": [one]}, {"params": [other], "factor": 3.0}, lr=0.1)
    for lr in (0.1, 0.02):
        optimizers.set_learning_rate(optimizer, lr)
        one.grad, other.grad = torch.ones(2, 2), torch.ones(2, 2)
        optimizer.step()
    torch.testing.assert_close(one.detach(), before[0] - 0.12)
    torch.testing.assert_close(other.detach(), before[1] - 0.36)


def test_the_learning_rate_in_a_tensor_is_set_in_place():
    optimizer = made({"kind": "Adam"}, {"params": [start(2, 2)], "factor": 2.0}, lr=0.1)
    rate = torch.tensor(0.2)
    optimizer.param_groups[0]["lr"] = rate
    optimizers.set_learning_rate(optimizer, 0.03)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.06)


@pytest.mark.parametrize(("kind", "fused"), [("Adam", True), ("AdamW", True), ("SGD", True), ("Adagrad", True)])
def test_optimizers_that_can_are_fused(kind: str, fused: bool):
    optimizer = made({"kind": kind}, {"params": [start(2, 2)]})
    assert optimizer.defaults["fused"] is fused
    assert optimizer.param_groups[0]["fused"] is fused


def test_a_step_on_the_cpu_is_not_part_of_a_graph():
    for kind in optimizers.known():
        assert not optimizers.capturable(made({"kind": kind}, {"params": [start(2, 2)]}))
    assert optimizers.capturable(torch.optim.Adamax([start(2, 2)], capturable=True))


@pytest.mark.parametrize("kind", optimizers.known())
def test_the_defaults_of_every_optimizer_are_accepted_as_arguments(kind: str):
    optimizers.check({"kind": kind})
    arguments = optimizers.arguments_of(kind)
    assert not {"params", "lr", "fused", "foreach", "capturable", "self"} & arguments.keys()
    optimizers.check({"kind": kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()})


@pytest.mark.parametrize(
    ("optimizer", "parts"),
    [
        ({"kind": "Adan"}, ["optimizer=Adan: not an option; allowed: ", "Adam, AdamW", "SGD"]),
        ({"kind": "LBFGS"}, ["optimizer=LBFGS: not an option; allowed: "]),
        ({"kind": "Optimizer"}, ["optimizer=Optimizer: not an option; allowed: "]),
        ({"kind": "lr_scheduler"}, ["optimizer=lr_scheduler: not an option; allowed: "]),
        ({"kind": "Adam", "beta": 0.9}, ["optimizer.beta=0.9: Adam does not use it; allowed: betas, eps"]),
        ({"kind": "Adam", "lr": 0.1}, ["optimizer.lr=0.1: Adam does not use it; allowed: betas"]),
        ({"kind": "SGD", "fused": False}, ["optimizer.fused=False: SGD does not use it; allowed: momentum"]),
        ({"kind": "SGD", "momentum": -0.5}, ["optimizer=SGD optimizer.momentum=-0.5: ", "momentum"]),
        ({"kind": "SGD", "nesterov": True}, ["optimizer=SGD optimizer.nesterov=True: ", "Nesterov momentum requires"]),
        ({"kind": "Adam", "betas": [1.5, 0.9]}, ["optimizer=Adam optimizer.betas=[1.5, 0.9]: ", "beta"]),
        ({"kind": "Adam", "betas": 0.9}, ["optimizer=Adam optimizer.betas=0.9: "]),
        ({"kind": "Adam", "betas": [0.9]}, ["optimizer=Adam optimizer.betas=[0.9]: "]),
        ({"kind": "Rprop", "etas": [0.5]}, ["optimizer=Rprop optimizer.etas=[0.5]: "]),
        ({"kind": "Adam", "weight_decay": "much"}, ["optimizer=Adam optimizer.weight_decay=much: "]),
        ({"kind": "RMSprop", "alpha": math.nan}, ["optimizer=RMSprop optimizer.alpha=nan: "]),
    ],
)
def test_a_bad_optimizer_is_one_line_that_names_setting_value_and_what_is_allowed(
    optimizer: dict[str, Any], parts: list[str]
):
    with pytest.raises(ConfigError) as caught:
        optimizers.check(optimizer)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(parts[0])
    for part in parts[1:]:
        assert part in message


def rates(trainer: Trainer, steps: int, steps_per_epoch: int) -> list[float]:
    return [optimizers.learning_rate(trainer, step, steps, steps_per_epoch) for step in range(steps)]


@pytest.mark.parametrize("steps", [2, 3, 10, 37])
def test_cosine_is_that_of_torch_step_by_step(steps: int):
    optimizer = torch.optim.SGD([start(1)], lr=0.03)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - 1)
    theirs = []
    for _ in range(steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(Trainer(lr=0.03, lr_schedule="cosine"), steps, 1) == pytest.approx(theirs, abs=1e-15)


def test_a_warm_up_grows_linearly_to_the_learning_rate_and_a_cosine_follows():
    trainer = Trainer(lr=0.03, lr_schedule="warmup_cosine", warmup_epochs=1.5, epochs=4)
    got = rates(trainer, 40, 10)
    assert got[:16] == pytest.approx([0.03 * (step + 1) / 16 for step in range(16)])
    assert got[15] == 0.03
    assert got[15:] == pytest.approx(rates(Trainer(lr=0.03, lr_schedule="cosine"), 25, 10))
    assert got[-1] == pytest.approx(0, abs=1e-15)
    assert max(got) == 0.03
    assert min(got) >= 0


def test_a_warm_up_shorter_than_a_step_is_none():
    trainer = Trainer(lr=0.03, lr_schedule="warmup_cosine", warmup_epochs=0.01, epochs=4)
    assert rates(trainer, 40, 10) == rates(Trainer(lr=0.03, lr_schedule="cosine"), 40, 10)


def test_a_warm_up_of_nearly_all_steps_ends_at_the_learning_rate():
    trainer = Trainer(lr=0.03, lr_schedule="warmup_cosine", warmup_epochs=3.99, epochs=4)
    assert rates(trainer, 4, 1) == pytest.approx([0.03 * (step + 1) / 4 for step in range(4)])


def test_a_constant_learning_rate_and_a_training_of_one_step():
    assert rates(Trainer(lr=0.03), 5, 1) == [0.03] * 5
    for schedule in ("cosine", "warmup_cosine"):
        assert rates(Trainer(lr=0.03, lr_schedule=schedule, warmup_epochs=0.5), 1, 1) == [0.03]


SHAPES = [(3, 4), (4,), (2, 3, 2, 2), ()]


def gradients(seed: int, scale: float) -> list[Tensor]:
    gen = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=gen) for shape in SHAPES]


def clipped_by_torch(grads: list[Tensor], max_norm: float) -> list[Tensor]:
    parameters = [torch.zeros_like(grad).requires_grad_() for grad in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.clone()
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize("scale", [1e-3, 0.3, 10.0, 0.0])
def test_clipping_one_run_is_that_of_torch(scale: float):
    grads = gradients(0, scale)
    expected = clipped_by_torch(grads, 1.5)
    optimizers.clip(grads, 1.5, stacked=False)
    torch.testing.assert_close(grads, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("with_single_numbers", [False, True])
def test_clipping_stacked_runs_is_that_of_torch_for_each_run(with_single_numbers: bool):
    runs = [gradients(seed, scale) for seed, scale in enumerate((1e-3, 0.3, 10.0))]
    if not with_single_numbers:
        runs = [run[:-1] for run in runs]
    grads = [torch.stack(same) for same in zip(*runs, strict=True)]
    optimizers.clip(grads, 1.5, stacked=True)
    for k, run in enumerate(runs):
        torch.testing.assert_close([grad[k] for grad in grads], clipped_by_torch(run, 1.5), rtol=2e-6, atol=0)
    norms = torch.stack([grad.flatten(min(1, grad.ndim - 1)).reshape(3, -1).square().sum(1) for grad in grads]).sum(0)
    assert norms[2].sqrt().item() == pytest.approx(1.5, rel=1e-5)
    assert norms[0].sqrt().item() < 0.1
