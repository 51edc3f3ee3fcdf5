"""Layers and random generators with a leading run axis K, of which K runs as one program are built.

A layer here holds the parameters of K independent layers. Nothing mixes the runs: output k depends only on input k and
parameters k, and the gradient of the sum of the K losses is the K separate gradients. A single run is K = 1, and is as
fast as with torch.nn's own layers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on a run's seed and on what the numbers are for, and on nothing else."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def initial(
    shape: Sequence[int], fan_in: int, fan_out: int, init: str, generators: Sequence[torch.Generator]
) -> Tensor:
    """Start values of a weight for each run, drawn from that run's own generator.

    Args:
        shape: of one run's weight.
        init: `uniform` U(±1/√fan_in), the default of torch.nn.Linear and Conv2d; `kaiming` N(0, 2/fan_in)
            (He et al. 2015); `xavier` N(0, 2/(fan_in + fan_out)) (Glorot and Bengio 2010).

    Returns:
        (K, *shape), float32, on the CPU.
    """
    drawn = torch.empty(len(generators), *shape)
    if drawn.is_meta:  # there is nothing to fill, and torch would take seconds to find that out
        return drawn
    for weight, gen in zip(drawn, generators, strict=True):
        if init == "uniform":
            bound = 1 / math.sqrt(fan_in)
            weight.uniform_(-bound, bound, generator=gen)
        else:
            variance = 2 / fan_in if init == "kaiming" else 2 / (fan_in + fan_out)
            weight.normal_(0, math.sqrt(variance), generator=gen)
    return drawn


def initial_bias(n: int, fan_in: int, init: str, generators: Sequence[torch.Generator]) -> Tensor:
    """Start values of a bias, (K, n): as torch.nn has it with `uniform`, else zero."""
    return initial([n], fan_in, n, init, generators) if init == "uniform" else torch.zeros(len(generators), n)


# x Wᵀ + b by oneDNN: on AMD processors twice as fast as the MKL that torch.mm uses, and not slower on Intel's.
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


class _OneDnnLinear(torch.autograd.Function):
    """`Linear` by one oneDNN call per run, so that a run's numbers do not depend on its neighbours, to the last bit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _each(lambda k: product(x[k], weight[k].t(), bias[k, 0]), len(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = _each(lambda k: product(grad[k], weight[k]), len(x)) if ctx.needs_input_grad[0] else None
        grad_weight = _each(lambda k: product(x[k].t(), grad[k].t()), len(x))
        return grad_x, grad_weight, grad.sum(dim=1, keepdim=True)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b by the routine that `Linear` uses on the CPU: (B, n), (m, n), (m,) -> (B, m)."""
    return F.linear(x, weight, bias) if _onednn is None else _onednn(x, weight, bias, "none", [], "")


def _each(of_run: Callable[[int], Tensor], n_runs: int) -> Tensor:
    """The products of all runs as one tensor; of a single run without a copy."""
    return of_run(0)[None] if n_runs == 1 else torch.stack([of_run(k) for k in range(n_runs)])


class Linear(nn.Module):
    """K independent linear layers."""

    def __init__(self, n_in: int, n_out: int, init: str, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial([n_in, n_out], n_in, n_out, init, generators))  # (K, n_in, n_out)
        self.bias = nn.Parameter(initial_bias(n_out, n_in, init, generators)[:, None])  # (K, 1, n_out)

    def forward(self, x: Tensor) -> Tensor:
        if _onednn is not None and x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.float32:
            return _OneDnnLinear.apply(x, self.weight, self.bias)  # (K, B, n_in) -> (K, B, n_out)
        return torch.baddbmm(self.bias, x, self.weight)


class Conv2d(nn.Module):
    """K independent 4x4 convolutions of stride 2 that halve height and width (odd ones are rounded down)."""

    def __init__(self, n_in: int, n_out: int, init: str, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        fan_in, fan_out = 16 * n_in, 16 * n_out
        self.weight = nn.Parameter(initial([n_out, n_in, 4, 4], fan_in, fan_out, init, generators))
        self.bias = nn.Parameter(initial_bias(n_out, fan_in, init, generators))  # (K, n_out)

    def forward(self, x: Tensor, k: int) -> Tensor:
        """Run k's convolution: (B, n_in, H, W) -> (B, n_out, H // 2, W // 2)."""
        return F.conv2d(x, self.weight[k], self.bias[k], stride=2, padding=1)


class ConvTranspose2d(nn.Module):
    """K independent 4x4 transposed convolutions of stride 2: the mirror of Conv2d.

    Args:
        odd: whether the height and the width to reach are odd, (bool, bool).
    """

    def __init__(
        self, n_in: int, n_out: int, odd: tuple[bool, bool], init: str, generators: Sequence[torch.Generator]
    ) -> None:
        super().__init__()
        self.output_padding = (int(odd[0]), int(odd[1]))
        # Each output pixel sees a 2x2 part of the kernel, so fan_in is 4 n_in.
        fan_in, fan_out = 4 * n_in, 16 * n_out
        self.weight = nn.Parameter(initial([n_in, n_out, 4, 4], fan_in, fan_out, init, generators))
        self.bias = nn.Parameter(initial_bias(n_out, fan_in, init, generators))  # (K, n_out)

    def forward(self, x: Tensor, k: int) -> Tensor:
        """Run k's convolution: (B, n_in, H, W) -> (B, n_out, 2H (+ 1 where odd), 2W (+ 1 where odd))."""
        return F.conv_transpose2d(
            x, self.weight[k], self.bias[k], stride=2, padding=1, output_padding=self.output_padding
        )
