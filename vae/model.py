"""The conditional VAE: encoders and decoders of three kinds, for K runs at once (an ordinary model is K = 1).

The label's one-hot vector, repeated n times, joins the encoder, the decoder, both or neither:

- mlp and linear: concatenated to the flat image and to z.
- conv: in the encoder as n·classes constant input planes, seen by a 1x1 kernel beside the first convolution (a plane
  that is constant needs no larger one), in the decoder concatenated to z.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae.config import Config, ConfigError
from vae.layers import Conv2d, ConvTranspose2d, Linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the shapes and functions of a model: runs that share it can be stacked."""

    kind: str
    image_shape: tuple[int, int, int]  # C, H, W
    n_classes: int
    z_dim: int
    encoder_repeat: int  # times the one-hot label joins the encoder; 0: it does not
    decoder_repeat: int
    hidden: tuple[int, ...] = ()  # mlp
    channels: tuple[int, ...] = ()  # conv
    activation: str = "relu"
    output: str = "identity"
    init: str = "uniform"
    pixels: str | None = None
    logvar_max: float | None = None

    @property
    def input_dim(self) -> int:
        """D = C·H·W."""
        return math.prod(self.image_shape)


def resolve(
    config: Config, image_shape: tuple[int, int, int], n_classes: int, eigenvalues: Sequence[float] | np.ndarray
) -> Architecture:
    """Works out what depends on the data: z_dim, the label repeats, whether the network fits.

    Args:
        eigenvalues: of the training covariance, descending (for `z_dim=pca`).

    Raises:
        ConfigError: where a setting does not fit the data.
    """
    input_dim = math.prod(image_shape)
    z = config.z_dim
    if z.kind == "pca":
        assert z.variance is not None
        total, explained, z_dim = sum(eigenvalues), 0.0, 0
        while explained < z.variance * total * (1 - 1e-12) and z_dim < len(eigenvalues):
            explained += eigenvalues[z_dim]
            z_dim += 1
    elif z.kind == "compression":
        assert z.ratio is not None
        if z.ratio > input_dim:
            raise ConfigError(
                f"z_dim.ratio={z.ratio:g}: out of range; allowed: at most {input_dim}, the pixels of an image"
            )
        z_dim = max(1, round(input_dim / z.ratio))
    else:
        assert z.value is not None
        z_dim = z.value
    if z_dim > input_dim:
        raise ConfigError(f"z_dim.value={z_dim}: out of range; allowed: at most {input_dim}, the pixels of an image")

    placement = config.label_placement.kind
    if placement != "none" and n_classes < 2:
        raise ConfigError(
            f"label_placement={placement}: the dataset has one class only, so there is nothing to condition on; "
            "allowed: none"
        )

    def repeat(joined: bool, length: int) -> int:
        if not joined:
            return 0
        if config.label_repeat.kind == "match":
            return max(1, round(length / n_classes))
        assert config.label_repeat.value is not None
        return config.label_repeat.value

    m = config.model
    if m.kind == "conv":
        assert m.channels is not None
        if min(image_shape[1:]) >> len(m.channels) < 1:
            raise ConfigError(
                f"model.channels={m.channels}: too many layers for images of {image_shape[1]}x{image_shape[2]}, each "
                f"halves them; allowed: at most {int(math.log2(min(image_shape[1:])))} layers"
            )
    return Architecture(
        kind=m.kind,
        image_shape=image_shape,
        n_classes=n_classes,
        z_dim=z_dim,
        encoder_repeat=repeat(placement in ("both", "encoder"), input_dim),
        decoder_repeat=repeat(placement in ("both", "decoder"), z_dim),
        hidden=tuple(m.hidden or ()),
        channels=tuple(m.channels or ()),
        activation=m.activation or "relu",
        output=m.output,
        init=m.init,
        pixels=m.pixels,
        logvar_max=m.logvar_max,
    )


def label_vector(y: Tensor, n_classes: int, repeat: int) -> Tensor:
    """The one-hot label, repeated: (K, B) -> (K, B, repeat·classes). Unlike F.one_hot it checks nothing."""
    return torch.eye(n_classes, device=y.device).repeat(1, repeat)[y]


def join_label(x: Tensor, y: Tensor, n_classes: int, repeat: int) -> Tensor:
    """Concatenates the label: (K, B, n), (K, B) -> (K, B, n + repeat·classes)."""
    return torch.cat([x, label_vector(y, n_classes, repeat)], dim=-1) if repeat else x


class Mlp(nn.Module):
    """K independent multi-layer perceptrons; no activation after the last layer. No hidden layer: a linear map."""

    def __init__(self, sizes: Sequence[int], arch: Architecture, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[arch.activation]
        self.layers = nn.ModuleList(
            Linear(n_in, n_out, arch.init, generators) for n_in, n_out in itertools.pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else self.activation(x))
        return x  # (K, B, sizes[-1])


class MlpEncoder(nn.Module):
    """Flat image and label to mu and logvar."""

    def __init__(self, arch: Architecture, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.arch = arch
        n_in = arch.input_dim + arch.encoder_repeat * arch.n_classes
        self.net = Mlp([n_in, *arch.hidden, 2 * arch.z_dim], arch, generators)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        joined = join_label(x, y, self.arch.n_classes, self.arch.encoder_repeat)  # (K, B, D + labels)
        mu, logvar = self.net(joined).chunk(2, dim=-1)  # (K, B, k) each
        return mu, logvar


class LinearEncoder(nn.Module):
    """mu linear in image and label; one logvar per dimension for all images (Lucas et al. 2019, section 3)."""

    def __init__(self, arch: Architecture, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.arch = arch
        n_in = arch.input_dim + arch.encoder_repeat * arch.n_classes
        self.net = Linear(n_in, arch.z_dim, arch.init, generators)
        self.logvar = nn.Parameter(torch.zeros(len(generators), 1, arch.z_dim))  # (K, 1, k)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mu = self.net(join_label(x, y, self.arch.n_classes, self.arch.encoder_repeat))  # (K, B, k)
        return mu, self.logvar.expand_as(mu)


class MlpDecoder(nn.Module):
    """z and label to the mean of the flat image; with no hidden layer the linear decoder."""

    def __init__(self, arch: Architecture, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.arch = arch
        n_in = arch.z_dim + arch.decoder_repeat * arch.n_classes
        self.net = Mlp([n_in, *reversed(arch.hidden), arch.input_dim], arch, generators)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.net(join_label(z, y, self.arch.n_classes, self.arch.decoder_repeat))  # (K, B, D)


class ConvEncoder(nn.Module):
    """Image through 4x4 stride-2 convolutions to mu and logvar."""

    def __init__(self, arch: Architecture, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.arch = arch
        self.activation = ACTIVATIONS[arch.activation]
        sizes = [arch.image_shape[0], *arch.channels]
        self.convs = nn.ModuleList(
            Conv2d(n_in, n_out, arch.init, generators) for n_in, n_out in itertools.pairwise(sizes)
        )
        n_labels = arch.encoder_repeat * arch.n_classes
        self.planes = Linear(n_labels, sizes[1], arch.init, generators) if n_labels else None
        _, h, w = arch.image_shape
        n_features = sizes[-1] * (h >> len(arch.channels)) * (w >> len(arch.channels))
        self.head = Linear(n_features, 2 * arch.z_dim, arch.init, generators)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        n_runs, n_images, _ = x.shape
        planes = None
        if self.planes is not None:
            labels = label_vector(y, self.arch.n_classes, self.arch.encoder_repeat)  # (K, B, n·classes)
            planes = self.planes(labels)[..., None, None]  # (K, B, channels, 1, 1)
        features = []
        for k in range(n_runs):
            h = x[k].reshape(n_images, *self.arch.image_shape).contiguous(memory_format=torch.channels_last)
            for i, conv in enumerate(self.convs):
                h = conv(h, k)  # (B, channels, H', W')
                if i == 0 and planes is not None:
                    h = h + planes[k]
                h = self.activation(h)
            features.append(h.flatten(1))
        mu, logvar = self.head(torch.stack(features)).chunk(2, dim=-1)  # (K, B, k) each
        return mu, logvar


class ConvDecoder(nn.Module):
    """z and label through transposed convolutions to the mean of the image: the encoder's mirror."""

    def __init__(self, arch: Architecture, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.arch = arch
        self.activation = ACTIVATIONS[arch.activation]
        n_channels, height, width = arch.image_shape
        depth = len(arch.channels)
        self.start = (arch.channels[-1], height >> depth, width >> depth)
        n_in = arch.z_dim + arch.decoder_repeat * arch.n_classes
        self.stem = Linear(n_in, math.prod(self.start), arch.init, generators)
        sizes = [*reversed(arch.channels), n_channels]
        self.convs = nn.ModuleList(
            ConvTranspose2d(
                sizes[i],
                sizes[i + 1],
                (bool(height >> depth - 1 - i & 1), bool(width >> depth - 1 - i & 1)),
                arch.init,
                generators,
            )
            for i in range(depth)
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        n_runs, n_images, _ = z.shape
        stem = self.stem(join_label(z, y, self.arch.n_classes, self.arch.decoder_repeat))  # (K, B, c·h·w)
        images = []
        for k in range(n_runs):
            h = stem[k].reshape(n_images, *self.start).contiguous(memory_format=torch.channels_last)
            for conv in self.convs:
                h = conv(self.activation(h), k)  # (B, channels, H', W')
            images.append(h.flatten(1))
        return torch.stack(images)  # (K, B, D)


class ConditionalVAE(nn.Module):
    """K conditional VAEs of one architecture.

    Args:
        arch: shapes and functions.
        generators: one per run; run k's weights are drawn from generator k alone.
    """

    def __init__(self, arch: Architecture, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.arch = arch
        encoders = {"mlp": MlpEncoder, "linear": LinearEncoder, "conv": ConvEncoder}
        self.encoder = encoders[arch.kind](arch, generators)
        self.decoder = (ConvDecoder if arch.kind == "conv" else MlpDecoder)(arch, generators)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x, y), (K, B, k) each, of images (K, B, D) in [0, 1] and labels (K, B)."""
        mu, logvar = self.encoder(2 * x - 1 if self.arch.pixels == "signed" else x, y)
        return mu, logvar if self.arch.logvar_max is None else logvar.clamp(max=self.arch.logvar_max)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """The mean of p(x|z, y), (K, B, D), of latents (K, B, k) and labels (K, B).

        Where pixels are signed inside the networks it is (h + 1)/2 of the decoder's last layer h; a sigmoid of h has
        the range of pixels already.
        """
        x_hat = self.decoder(z, y)
        if self.arch.output == "sigmoid":
            return torch.sigmoid(x_hat)
        return (x_hat + 1) / 2 if self.arch.pixels == "signed" else x_hat


def n_parameters(arch: Architecture) -> int:
    """The trained numbers of one run, counted without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in ConditionalVAE(arch, [torch.Generator("cpu")]).parameters())
