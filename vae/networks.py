"""Encoders and decoders: ordinary nn.Modules that take ordinary batches.

All of them have the same interface, and so does a network of your own:

    Encoder(image_shape=(C, H, W), label_dim=L, out_dim=P, **own)   forward(x (B, C, H, W), label (B, L)) -> (B, P)
    Decoder(z_dim=k, label_dim=L, out_shape=(p·C, H, W), **own)     forward(z (B, k), label (B, L)) -> (B, p·C, H, W)

`label` is the one-hot vector, repeated as often as `label_repeat` says; L = 0 if the network does not receive it.
P = 2k, for mu and logvar. p is the number of parameters that the likelihood has for each pixel and channel.

The label is concatenated to the flat image and to z. In a convolutional encoder, it becomes L constant planes. A 1x1
convolution of these planes is added to the output of the first convolution (constant planes need no larger kernel).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
}

# x Wᵀ + b by oneDNN: faster on AMD processors than MKL, which torch.mm uses, and no slower on Intel processors.
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b by the routine that `Linear` uses on the CPU: (B, n), (m, n), (m,) -> (B, m)."""
    return F.linear(x, weight, bias) if _onednn is None else _onednn(x, weight, bias, "none", [], "")


class _OneDnnProduct(torch.autograd.Function):
    """`product` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors  # (B, n), (m, n)
        grad_x = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        return grad_x, product(grad.t(), x.t()), grad.sum(dim=0)


class Linear(nn.Linear):
    """torch.nn.Linear, with oneDNN's product on the CPU: (B, n) -> (B, m).

    Attributes:
        onednn: whether oneDNN may be used; not under torch.func.vmap, which cannot look inside it.
    """

    onednn = _onednn is not None

    def forward(self, input: Tensor) -> Tensor:
        plain = not self.onednn or input.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if plain or self.bias is None or input.ndim != 2 or not input.dtype == self.weight.dtype == torch.float32:
            return F.linear(input, self.weight, self.bias)
        return _OneDnnProduct.apply(input, self.weight, self.bias)  # pyright: ignore[reportReturnType]


def initialise(network: nn.Module, init: str) -> None:
    """Sets the initial weights of a network's layers, drawn from torch's global generator.

    Args:
        init: `uniform`: weights and biases from U(±1/√fan_in), as in torch.nn.Linear. `kaiming`: weights from
            N(0, 2/fan_in) (He et al. 2015). `xavier`: weights from N(0, 2/(fan_in + fan_out)) (Glorot and Bengio
            2010). The last two set biases to 0.
    """
    for layer in network.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            continue
        weight, n = layer.weight, layer.weight.shape
        fan_in, fan_out = math.prod(n[1:]), n[0] * math.prod(n[2:])
        if isinstance(layer, nn.ConvTranspose2d):
            # An output pixel sees only part of the kernel: a quarter of a 4x4 kernel with stride 2.
            fan_in, fan_out = n[0] * math.prod(n[2:]) // math.prod(layer.stride), math.prod(n[1:])
        bound = 1 / math.sqrt(fan_in)
        if init == "uniform":
            nn.init.uniform_(weight, -bound, bound)
        else:
            nn.init.normal_(weight, 0, math.sqrt(2 / fan_in if init == "kaiming" else 2 / (fan_in + fan_out)))
        if layer.bias is not None:
            nn.init.uniform_(layer.bias, -bound, bound) if init == "uniform" else nn.init.zeros_(layer.bias)


def join(x: Tensor, label: Tensor) -> Tensor:
    """Concatenates the label: (B, n), (B, L) -> (B, n + L)."""
    return torch.cat([x, label], dim=1) if label.shape[1] else x


class Mlp(nn.Module):
    """A multi-layer perceptron with no activation after the last layer; a linear map if it has no hidden layers."""

    def __init__(self, sizes: Sequence[int], activation: str, init: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.layers = nn.ModuleList(Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(sizes))
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else self.activation(x))
        return x  # (B, sizes[-1])


class MlpEncoder(nn.Module):
    """A multi-layer perceptron. Its input is the flat image and the label."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        label_dim: int,
        out_dim: int,
        *,
        hidden: Sequence[int],
        activation: str = "relu",
        init: str = "uniform",
    ) -> None:
        super().__init__()
        self.net = Mlp([math.prod(image_shape) + label_dim, *hidden, out_dim], activation, init)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.net(join(x.flatten(1), label))  # (B, P)


class MlpDecoder(nn.Module):
    """A multi-layer perceptron with the encoder's hidden layers in reverse; linear if there are none."""

    def __init__(
        self,
        z_dim: int,
        label_dim: int,
        out_shape: tuple[int, int, int],
        *,
        hidden: Sequence[int] = (),
        activation: str = "relu",
        init: str = "uniform",
    ) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.net = Mlp([z_dim + label_dim, *reversed(hidden), math.prod(out_shape)], activation, init)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.net(join(z, label)).unflatten(1, self.out_shape)  # (B, p·C, H, W)


class LinearEncoder(nn.Module):
    """mu is linear in image and label; each dimension has one logvar for all images (Lucas et al. 2019, section 3)."""

    def __init__(
        self, image_shape: tuple[int, int, int], label_dim: int, out_dim: int, *, init: str = "uniform"
    ) -> None:
        super().__init__()
        self.net = Linear(math.prod(image_shape) + label_dim, out_dim // 2)
        self.logvar = nn.Parameter(torch.zeros(out_dim // 2))  # (k,)
        initialise(self, init)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        mu = self.net(join(x.flatten(1), label))  # (B, k)
        return torch.cat([mu, self.logvar.expand_as(mu)], dim=1)  # (B, 2k)


class ConvEncoder(nn.Module):
    """4x4 convolutions of stride 2. Each halves height and width, rounding down."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        label_dim: int,
        out_dim: int,
        *,
        channels: Sequence[int],
        activation: str = "relu",
        init: str = "uniform",
    ) -> None:
        super().__init__()
        n_channels, height, width = image_shape
        depth = len(channels)
        self.activation = ACTIVATIONS[activation]
        self.convs = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 4, stride=2, padding=1)
            for n_in, n_out in itertools.pairwise([n_channels, *channels])
        )
        self.planes = Linear(label_dim, channels[0]) if label_dim else None
        self.head = Linear(channels[-1] * (height >> depth) * (width >> depth), out_dim)
        initialise(self, init)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for i, conv in enumerate(self.convs):
            x = conv(x)  # (B, channels, H', W')
            if i == 0 and self.planes is not None:
                x = x + self.planes(label)[:, :, None, None]
            x = self.activation(x)
        return self.head(x.flatten(1))  # (B, P)


class ConvDecoder(nn.Module):
    """4x4 transposed convolutions of stride 2: the mirror image of a ConvEncoder."""

    def __init__(
        self,
        z_dim: int,
        label_dim: int,
        out_shape: tuple[int, int, int],
        *,
        channels: Sequence[int],
        activation: str = "relu",
        init: str = "uniform",
    ) -> None:
        super().__init__()
        n_channels, height, width = out_shape
        depth = len(channels)
        self.activation = ACTIVATIONS[activation]
        self.start = (channels[-1], height >> depth, width >> depth)
        self.stem = Linear(z_dim + label_dim, math.prod(self.start))
        sizes = [*reversed(channels), n_channels]
        self.convs = nn.ModuleList(
            _doubling(sizes[i], sizes[i + 1], (height, width), depth - 1 - i) for i in range(depth)
        )
        initialise(self, init)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        h = self.stem(join(z, label)).unflatten(1, self.start)  # (B, channels, h, w)
        for conv in self.convs:
            h = conv(self.activation(h))  # (B, channels, H', W')
        return h  # (B, p·C, H, W)


def _doubling(n_in: int, n_out: int, size: tuple[int, int], level: int) -> nn.ConvTranspose2d:
    """The transposed convolution whose output has the image's height and width, halved `level` times."""
    odd = (size[0] >> level & 1, size[1] >> level & 1)
    return nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1, output_padding=odd)


class Residual(nn.Module):
    """x + f(x). f has two 3x3 convolutions, each after GroupNorm and activation (He et al. 2016; Wu and He 2018)."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.norms = nn.ModuleList(_norm(channels) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(self.activation(norm(h)))  # (B, channels, H, W)
        return x + h


def _norm(channels: int) -> nn.GroupNorm:
    """At most 8 groups of at least 4 channels: normalizing single channels would remove the label's planes."""
    groups = max(g for g in range(1, 9) if channels % g == 0 and (channels >= 4 * g or g == 1))
    return nn.GroupNorm(groups, channels)


class ResnetEncoder(nn.Module):
    """A convolutional encoder (see `conv`) with residual blocks after each convolution."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        label_dim: int,
        out_dim: int,
        *,
        channels: Sequence[int],
        blocks: int = 1,
        activation: str = "relu",
        init: str = "uniform",
    ) -> None:
        super().__init__()
        n_channels, height, width = image_shape
        depth = len(channels)
        self.activation = ACTIVATIONS[activation]
        self.downs = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 4, stride=2, padding=1)
            for n_in, n_out in itertools.pairwise([n_channels, *channels])
        )
        self.blocks = nn.ModuleList(nn.Sequential(*(Residual(n, activation) for _ in range(blocks))) for n in channels)
        self.planes = Linear(label_dim, channels[0]) if label_dim else None
        self.norm = _norm(channels[-1])
        self.head = Linear(channels[-1] * (height >> depth) * (width >> depth), out_dim)
        initialise(self, init)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for i, (down, block) in enumerate(zip(self.downs, self.blocks, strict=True)):
            x = down(x)  # (B, channels, H', W')
            if i == 0 and self.planes is not None:
                x = x + self.planes(label)[:, :, None, None]
            x = block(x)
        return self.head(self.activation(self.norm(x)).flatten(1))  # (B, P)


class ResnetDecoder(nn.Module):
    """The mirror image of a ResnetEncoder, with residual blocks before each transposed convolution."""

    def __init__(
        self,
        z_dim: int,
        label_dim: int,
        out_shape: tuple[int, int, int],
        *,
        channels: Sequence[int],
        blocks: int = 1,
        activation: str = "relu",
        init: str = "uniform",
    ) -> None:
        super().__init__()
        n_channels, height, width = out_shape
        depth = len(channels)
        self.activation = ACTIVATIONS[activation]
        self.start = (channels[-1], height >> depth, width >> depth)
        self.stem = Linear(z_dim + label_dim, math.prod(self.start))
        widths = list(reversed(channels))
        self.blocks = nn.ModuleList(nn.Sequential(*(Residual(n, activation) for _ in range(blocks))) for n in widths)
        self.norms = nn.ModuleList(_norm(n) for n in widths)
        sizes = [*widths, n_channels]
        self.ups = nn.ModuleList(
            _doubling(sizes[i], sizes[i + 1], (height, width), depth - 1 - i) for i in range(depth)
        )
        initialise(self, init)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        h = self.stem(join(z, label)).unflatten(1, self.start)  # (B, channels, h, w)
        for block, norm, up in zip(self.blocks, self.norms, self.ups, strict=True):
            h = up(self.activation(norm(block(h))))  # (B, channels, H', W')
        return h  # (B, p·C, H, W)


ENCODERS: dict[str, type[nn.Module]] = {
    "mlp": MlpEncoder, "conv": ConvEncoder, "resnet": ResnetEncoder, "linear": LinearEncoder
}  # fmt: skip
DECODERS: dict[str, type[nn.Module]] = {
    "mlp": MlpDecoder, "conv": ConvDecoder, "resnet": ResnetDecoder, "linear": MlpDecoder
}  # fmt: skip
