"""Runs in training: one run as an ordinary module, or K runs as one program through torch.func.vmap.

The whole state of a run can be taken out (`state`), and a stack can be made from such states (`Stack.of`). This one
mechanism serves to save checkpoints, to resume, to drop a run that diverged, and to split a stack that needs too much
memory.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from vae import optimizers
from vae.capture import Captured, CudaGraphs, eagerly
from vae.config import Config
from vae.model import Architecture, build
from vae.networks import Linear
from vae.objectives import objective_of
from vae.terms import Objective

# In any network, ln x_var must move by several units while the weights move by hundredths.
X_VAR_LR_FACTOR = 10.0
X_VAR = "likelihood.log_x_var"


class Stack:
    """K runs in training.

    The runs share all settings except the seed, beta and the value of x_var, and they are at the same position in the
    training. If K > 1, each tensor has a leading run axis. Everything that a training step changes stays at a fixed
    address, so that the step can be captured as a CUDA graph.

    Args:
        configs, archs: one per run.
        n_train: number of training images.
        device: where the parameters live.
    """

    def __init__(
        self, configs: Sequence[Config], archs: Sequence[Architecture], n_train: int, device: torch.device
    ) -> None:
        self.configs, self.archs, self.n_train, self.device = list(configs), list(archs), n_train, device
        self.arch = archs[0]
        self.objective: Objective = objective_of(configs[0], n_train)
        models = [build(arch, c.seed).to(device) for arch, c in zip(archs, configs, strict=True)]
        self.stacked = len(models) > 1
        if self.stacked:
            self.parameters, self._buffers = stack_module_state(models)  # pyright: ignore[reportArgumentType]
            self.model = copy.deepcopy(models[0]).to("meta")
            for layer in self.model.modules():
                if isinstance(layer, Linear):
                    layer.onednn = False
        else:
            self.model = models[0]
            self.parameters, self._buffers = dict(self.model.named_parameters()), dict(self.model.named_buffers())
        self._kept = [name for name in models[0].state_dict() if name not in self.parameters]  # buffers of the state
        self.epoch = 0  # whole epochs done
        self.step = 0  # steps done of the current epoch
        self.totals = torch.zeros(3, len(self.configs), dtype=torch.float64, device=device)  # of the current epoch
        self.history: list[list[dict[str, float]]] = [[] for _ in configs]

        groups = [{"params": [p for name, p in self.parameters.items() if name != X_VAR], "factor": 1.0}]
        if X_VAR in self.parameters:
            groups.append({"params": [self.parameters[X_VAR]], "factor": X_VAR_LR_FACTOR})
        self.trainer = configs[0].trainer
        self.optimizer = optimizers.make(configs[0].optimizer, groups, self.trainer.lr, device)
        captured = device.type == "cuda" and optimizers.capturable(self.optimizer)
        self.call = Captured(CudaGraphs(device)) if captured else eagerly  # calls a training step

    @property
    def n_runs(self) -> int:
        return len(self.configs)

    def losses(self, x: Tensor, y: Tensor, noise: Mapping[str, Tensor], schedule: Tensor) -> Tensor:
        """Loss, SSE and KL of each run, means over its batch: (K, 3). Arguments as in VAE.forward, with a run axis."""
        half = self.trainer.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            if not self.stacked:
                own = {name: value[0] for name, value in noise.items()}
                return self.model(self.objective, x[0], y[0], own, schedule[0])[None]
            return vmap(self._of_one_run, randomness="different")(self.parameters, self._buffers, x, y, noise, schedule)

    def _of_one_run(self, parameters: Any, buffers: Any, *batch: Any) -> Tensor:
        return functional_call(self.model, (parameters, buffers), (self.objective, *batch))

    def zero_grad(self) -> None:
        """Frees the gradients of the previous step."""
        for p in self.parameters.values():
            p.grad = None

    def optimizer_step(self) -> None:
        """Clips the gradients of each run and takes one optimizer step."""
        if self.trainer.clip is not None:
            grads = [p.grad for p in self.parameters.values() if p.grad is not None]
            optimizers.clip(grads, self.trainer.clip, self.stacked)
        self.optimizer.step()

    def log_x_var(self, k: int) -> float | None:
        """ln x_var of run k; None if its likelihood has no such number."""
        value = self._tensors().get(X_VAR)
        return None if value is None else self._row(value, k).item()

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the models that training can change, by name."""
        return {**self.parameters, **{name: self._buffers[name] for name in self._kept}}

    def _row(self, value: Tensor, k: int) -> Tensor:
        """Run k's part of a tensor."""
        return value[k] if self.stacked else value

    def model_state(self, k: int) -> dict[str, Tensor]:
        """The state dict of run k's model: copies, on the CPU."""
        return {name: self._row(value.detach(), k).cpu().clone() for name, value in self._tensors().items()}

    def state(self, k: int) -> dict[str, Any]:
        """Run k's whole state: CPU copies of tensors, numbers and lists. Safe for torch.load(weights_only=True)."""
        moments = {
            name: {key: self._moment(key, value, p, k) for key, value in self.optimizer.state[p].items()}
            for name, p in self.parameters.items()
            if p in self.optimizer.state
        }
        return {
            "model": self.model_state(k),
            "optimizer": moments,
            "device": self.device.type,  # other kinds of devices draw other random numbers
            "epoch": self.epoch,
            "step": self.step,
            "totals": self.totals[:, k].cpu().clone(),
            "history": [dict(row) for row in self.history[k]],
        }

    def _moment(self, key: str, value: Any, p: Tensor, k: int) -> Any:
        """Run k's part of an entry of the optimizer's state. Entries shared by all runs, such as the step, stay."""
        if not isinstance(value, Tensor):
            return value
        return (self._row(value, k) if value.shape == p.shape and key != "step" else value).cpu().clone()

    @classmethod
    def of(
        cls,
        configs: Sequence[Config],
        archs: Sequence[Architecture],
        n_train: int,
        device: torch.device,
        states: Sequence[dict[str, Any]],
    ) -> Stack:
        """A stack that continues from the states of runs that are all at the same epoch and step."""
        stack = cls(configs, archs, n_train, device)
        positions = {(state["epoch"], state["step"]) for state in states}
        assert len(positions) == 1, f"runs at different positions cannot be stacked: {positions}"
        (stack.epoch, stack.step) = positions.pop()
        for k, state in enumerate(states):
            stack._load(k, state)
        return stack

    @torch.no_grad()
    def _load(self, k: int, state: dict[str, Any]) -> None:
        for name, value in self._tensors().items():
            self._row(value, k).copy_(state["model"][name])
        for name, moments in state["optimizer"].items():
            p = self.parameters[name]
            own = self.optimizer.state[p]
            for key, value in moments.items():
                if isinstance(value, Tensor) and value.shape == self._row(p, k).shape and key != "step":
                    own.setdefault(key, torch.empty_like(p))
                    self._row(own[key], k).copy_(value)
                elif isinstance(value, Tensor) and optimizers.capturable(self.optimizer):
                    own[key] = value.to(self.device)
                else:
                    own[key] = value
        self.totals[:, k] = state["totals"].to(self.device)
        self.history[k] = [dict(row) for row in state["history"]]

    def select(self, runs: Sequence[int]) -> Stack:
        """A stack of some of these runs, as they are."""
        picked = [self.configs[k] for k in runs], [self.archs[k] for k in runs]
        return Stack.of(*picked, self.n_train, self.device, [self.state(k) for k in runs])
