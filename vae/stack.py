"""K runs of one architecture as one program: their parameters, optimizer, generators and settings.

A run's whole state can be taken out (`state`) and a stack can be made of any such states (`Stack.of`): that one
mechanism serves checkpoints, resuming, dropping a run that diverged and splitting a stack that needs too much memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.layers import generator
from vae.model import Architecture, ConditionalVAE

# ln x_var has one scale whatever the network, and must cross several units where the weights move by hundredths.
X_VAR_LR_FACTOR = 10.0


class Stack:
    """K runs in training.

    All runs share `arch`, `trainer.epochs`, `trainer.batch_size` and the position in the training; seed, learning rate,
    x_var, beta and objective are each run's own. One fused Adam has a parameter group a run, over views of the stacked
    parameters.

    Args:
        configs: one a run.
        arch: of all.
        device: where the parameters live.
    """

    def __init__(self, configs: Sequence[Config], arch: Architecture, device: torch.device) -> None:
        self.configs = list(configs)
        self.arch = arch
        self.device = device
        self.model = ConditionalVAE(arch, [generator(c.seed, "init") for c in configs]).to(device)
        self.log_x_var = nn.Parameter(torch.tensor([math.log(c.x_var.value) for c in configs]).to(device))  # (K,)
        self.generators = [generator(c.seed, "train", device) for c in configs]
        self.per_dim = torch.tensor([c.objective.kind == "per_dim" for c in configs], device=device)  # (K,)
        self.epoch = 0  # whole epochs done
        self.step = 0  # steps done of the current epoch
        self.epoch_start = [g.get_state() for g in self.generators]  # generators at the start of the current epoch
        self.totals = torch.zeros(3, len(self.configs), dtype=torch.float64, device=device)  # of the current epoch
        self.history: list[list[dict[str, float]]] = [[] for _ in configs]
        self._views = [self._views_of(k) for k in range(self.n_runs)]
        self._views_by_parameter = [(p, [v[name] for v in self._views]) for name, p in self.parameters().items()]
        groups = []
        for k, views in enumerate(self._views):
            weights = [v for name, v in views.items() if name != "log_x_var"]
            groups.append({"params": weights, "run": k, "factor": 1.0})
            if self.configs[k].x_var.kind == "learned":
                groups.append({"params": [views["log_x_var"]], "run": k, "factor": X_VAR_LR_FACTOR})
        self.optimizer = torch.optim.Adam(groups, fused=True)

    @property
    def n_runs(self) -> int:
        return len(self.configs)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The stacked parameters by name, each with leading axis K."""
        return {**dict(self.model.named_parameters()), "log_x_var": self.log_x_var}

    def _views_of(self, k: int) -> dict[str, Tensor]:
        return {name: p.data[k : k + 1] for name, p in self.parameters().items()}

    def optimizer_step(self) -> None:
        """One step of Adam for every run, from the gradients of the stacked parameters."""
        for p, views in self._views_by_parameter:
            if p.grad is None:  # ln x_var, where no run learns it
                continue
            for view, grad in zip(views, p.grad.split(1), strict=True):
                view.grad = grad
            p.grad = None
        self.optimizer.step()

    def learning_rate(self, k: int) -> float:
        """Run k's learning rate in the current epoch."""
        trainer = self.configs[k].trainer
        if trainer.lr_schedule == "cosine":
            return trainer.lr * 0.5 * (1 + math.cos(math.pi * self.epoch / trainer.epochs))
        return trainer.lr

    def set_learning_rates(self) -> None:
        """Puts each run's learning rate for the current epoch into the optimizer."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(group["run"]) * group["factor"]

    def state(self, k: int) -> dict[str, Any]:
        """All of run k: tensors (copies, on the CPU), numbers and lists; safe for torch.load(weights_only=True)."""
        moments = {
            name: {key: value.detach().cpu().clone() for key, value in self.optimizer.state[view].items()}
            for name, view in self._views[k].items()
            if view in self.optimizer.state
        }
        return {
            "parameters": {name: view.detach().cpu().clone() for name, view in self._views[k].items()},
            "optimizer": moments,
            "device": self.device.type,  # generators of another kind of device cannot go on from this state
            "generator": self.epoch_start[k].clone(),
            "epoch": self.epoch,
            "step": self.step,
            "totals": self.totals[:, k].cpu().clone(),
            "history": [dict(row) for row in self.history[k]],
        }

    @classmethod
    def of(
        cls, configs: Sequence[Config], arch: Architecture, device: torch.device, states: Sequence[dict[str, Any]]
    ) -> Stack:
        """A stack that goes on from the states of runs that are all at the same epoch and step."""
        stack = cls(configs, arch, device)
        positions = {(state["epoch"], state["step"]) for state in states}
        assert len(positions) == 1, f"runs at different positions cannot be stacked: {positions}"
        (stack.epoch, stack.step) = positions.pop()
        for k, state in enumerate(states):
            for name, view in stack._views[k].items():
                view.copy_(state["parameters"][name])
                if name in state["optimizer"]:
                    saved = state["optimizer"][name]
                    stack.optimizer.state[view] = {key: value.clone().to(view.device) for key, value in saved.items()}
            stack.epoch_start[k] = state["generator"].clone()
            stack.totals[:, k] = state["totals"].to(device)
            stack.history[k] = [dict(row) for row in state["history"]]
        return stack

    def select(self, runs: Sequence[int]) -> Stack:
        """A stack of some of these runs, as they are."""
        return Stack.of([self.configs[k] for k in runs], self.arch, self.device, [self.state(k) for k in runs])
