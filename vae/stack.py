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

from vae import objective
from vae.capture import Captured, CudaGraphs, eagerly
from vae.config import Config
from vae.layers import generator
from vae.model import Architecture, ConditionalVAE

# ln x_var has one scale whatever the network, and must cross several units where the weights move by hundredths.
X_VAR_LR_FACTOR = 10.0


class Stack:
    """K runs in training.

    All runs share `arch`, `trainer.epochs`, `trainer.batch_size` and the position in the training; seed, learning rate,
    x_var, beta and objective are each run's own. One fused Adam, over views of the stacked parameters, has a parameter
    group for each learning rate. All that a step of training changes lies at fixed addresses, the learning rates too,
    so that the step can be captured as a CUDA graph.

    Args:
        configs: one per run.
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
        self.call = Captured(CudaGraphs(device)) if device.type == "cuda" else eagerly  # calls a step of the training

        with torch.no_grad():
            weights = objective.weights(self.log_x_var, self.per_dim, arch.input_dim, arch.z_dim)
        self._fixed_weights = None if any(c.x_var.kind == "learned" for c in configs) else weights

        by_rate: dict[tuple[float, str], list[int]] = {}
        for k, c in enumerate(configs):
            by_rate.setdefault((c.trainer.lr, c.trainer.lr_schedule), []).append(k)
        whole = len(by_rate) == 1 and takes_stacks_whole(device)
        self._views = {
            name: p.data.split(self.n_runs if whole and name != "log_x_var" else 1)
            for name, p in self.parameters().items()
        }
        self._views_by_parameter = [(p, self._views[name]) for name, p in self.parameters().items()]
        groups = []
        for runs in by_rate.values():
            learned = [self._views["log_x_var"][k] for k in runs if configs[k].x_var.kind == "learned"]
            weights = [self._view(name, k)[0] for name in self._views if name != "log_x_var" for k in runs]
            groups.append({"params": list(dict.fromkeys(weights)), "run": runs[0], "factor": 1.0})
            if learned:
                groups.append({"params": learned, "run": runs[0], "factor": X_VAR_LR_FACTOR})
        for group in groups:
            # Adam reads a rate in double precision on the CPU, and in single where it lies on a GPU.
            dtype = torch.float64 if device.type == "cpu" else torch.float32
            rate = configs[group["run"]].trainer.lr * group["factor"]
            group["lr"] = torch.tensor(rate, dtype=dtype, device=device)
        self.optimizer = torch.optim.Adam(groups, fused=True, capturable=True)
        self._scheduled = [
            group for group in self.optimizer.param_groups if configs[group["run"]].trainer.lr_schedule != "constant"
        ]

    @property
    def n_runs(self) -> int:
        return len(self.configs)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The stacked parameters by name, each with leading axis K."""
        return {**dict(self.model.named_parameters()), "log_x_var": self.log_x_var}

    def _view(self, name: str, k: int) -> tuple[Tensor, slice]:
        """The optimizer's tensor that holds run k's part of a parameter, and where in it."""
        views = self._views[name]
        i, row = divmod(k, self.n_runs // len(views))
        return views[i], slice(row, row + 1)

    def loss_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """objective.weights of the runs, (K,) each: constants of the training where no run learns its x_var."""
        if self._fixed_weights is not None:
            return self._fixed_weights
        return objective.weights(self.log_x_var, self.per_dim, self.arch.input_dim, self.arch.z_dim)

    def zero_grad(self) -> None:
        """Lets go of the gradients of the step before."""
        for p, views in self._views_by_parameter:
            p.grad = None
            for view in views:
                view.grad = None

    def optimizer_step(self) -> None:
        """One step of Adam for every run, from the gradients of the stacked parameters."""
        for p, views in self._views_by_parameter:
            if p.grad is None:  # ln x_var, where no run learns it
                continue
            for view, grad in zip(views, p.grad.split(self.n_runs // len(views)), strict=True):
                view.grad = grad
        self.optimizer.step()

    def learning_rate(self, k: int, step: int, steps: int) -> float:
        """Run k's learning rate at a step of the training, counted from 0 over all epochs.

        Args:
            steps: of the whole training. With `cosine` the rate of the last one is 0.
        """
        trainer = self.configs[k].trainer
        if trainer.lr_schedule == "cosine" and steps > 1:
            return trainer.lr * 0.5 * (1 + math.cos(math.pi * step / (steps - 1)))
        return trainer.lr

    def set_learning_rates(self, step: int, steps: int) -> None:
        """Puts the rates of a step into the optimizer, whose tensors a captured step reads."""
        for group in self._scheduled:
            group["lr"].fill_(self.learning_rate(group["run"], step, steps) * group["factor"])

    def state(self, k: int) -> dict[str, Any]:
        """All of run k: tensors (copies, on the CPU), numbers and lists; safe for torch.load(weights_only=True)."""
        parts = {name: self._view(name, k) for name in self._views}
        moments = {
            name: {
                key: (value if key == "step" else value[row]).cpu().clone()
                for key, value in self.optimizer.state[view].items()
            }
            for name, (view, row) in parts.items()
            if view in self.optimizer.state
        }
        return {
            "parameters": {name: view[row].cpu().clone() for name, (view, row) in parts.items()},
            "optimizer": moments,
            "device": self.device.type,  # generators of another kind of device cannot continue from this state
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
        """A stack that continues from the states of runs that are all at the same epoch and step."""
        stack = cls(configs, arch, device)
        positions = {(state["epoch"], state["step"]) for state in states}
        assert len(positions) == 1, f"runs at different positions cannot be stacked: {positions}"
        (stack.epoch, stack.step) = positions.pop()
        for k, state in enumerate(states):
            for name in stack._views:
                view, row = stack._view(name, k)
                view[row] = state["parameters"][name]
                for key, value in state["optimizer"].get(name, {}).items():
                    moments = stack.optimizer.state[view]
                    if key == "step":  # one for all runs of the view, which are at one position
                        moments[key] = value.clone().to(device)
                    else:
                        moments.setdefault(key, torch.empty_like(view))[row] = value
            stack.epoch_start[k] = state["generator"].clone()
            stack.totals[:, k] = state["totals"].to(device)
            stack.history[k] = [dict(row) for row in state["history"]]
        return stack

    def select(self, runs: Sequence[int]) -> Stack:
        """A stack of some of these runs, as they are."""
        return Stack.of([self.configs[k] for k in runs], self.arch, self.device, [self.state(k) for k in runs])


def takes_stacks_whole(device: torch.device) -> bool:
    """Whether Adam has one tensor for all runs of a parameter, rather than one per run.

    That needs the fewest calls, which is what counts on a GPU. On the CPU the last few elements of a tensor are rounded
    differently from the rest, so that a run's last bits would depend on its neighbours.
    """
    return device.type == "cuda"
