"""The conditional VAE: encoder, decoder, likelihood and prior, put together from a specification."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vae import parts
from vae.config import Config, ConfigError, own_parts
from vae.likelihoods import likelihood_of
from vae.networks import DECODERS, ENCODERS
from vae.objectives import objective_of
from vae.priors import prior_of
from vae.seeding import seed_of
from vae.terms import Objective, Terms

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Architecture:
    """Everything that a model is built from. `model.safetensors` stores it with the weights.

    Attributes:
        network: `kind` and the arguments of encoder and decoder; for `custom` the specifications `encoder` and
            `decoder`, each with `_target_`.
        likelihood, prior: `kind` and arguments.
        encoder_repeat, decoder_repeat: repeats of the one-hot label for the network; 0 if it receives no label.
        pixels: `signed` if an image x enters the encoder as 2x - 1.
        logvar_max: upper bound of the encoder's logvar.
        bug: the bug that the model was trained with on purpose. With `variance_as_std`, q(z|x, y) has the variance
            exp(2·logvar), because this is what z was drawn with.
    """

    image_shape: tuple[int, int, int]  # C, H, W
    n_classes: int
    z_dim: int
    encoder_repeat: int
    decoder_repeat: int
    network: Mapping[str, Any]
    likelihood: Mapping[str, Any] = field(default_factory=lambda: {"kind": "gaussian"})
    prior: Mapping[str, Any] = field(default_factory=lambda: {"kind": "standard"})
    pixels: str | None = None
    logvar_max: float | None = None
    bug: str = "none"

    @property
    def input_dim(self) -> int:
        """D = C·H·W."""
        return math.prod(self.image_shape)

    @property
    def parts(self) -> dict[str, Any]:
        """The user's own parts, by setting. Building the model imports them."""
        found = {"model": self.network, "likelihood": self.likelihood, "prior": self.prior}
        return {name: spec for name, spec in found.items() if spec["kind"] == "custom"}


class VAE(nn.Module):
    """One conditional VAE. Images are (B, C, H, W) in [0, 1], labels (B,) integers.

    Raises:
        ConfigError: if a part of the user's own cannot be made.
    """

    encoder: nn.Module
    decoder: nn.Module
    encoder_labels: Tensor  # row c: the label vector of class c
    decoder_labels: Tensor

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.likelihood = likelihood_of(arch.likelihood)
        n_channels, height, width = arch.image_shape
        # p·C, H, W: the parameters of p(x|z, y) for one image.
        self.out_shape = (getattr(self.likelihood, "n_parameters", 1) * n_channels, height, width)
        given = {
            "encoder": {
                "image_shape": arch.image_shape,
                "label_dim": arch.encoder_repeat * arch.n_classes,
                "out_dim": 2 * arch.z_dim,
            },
            "decoder": {
                "z_dim": arch.z_dim,
                "label_dim": arch.decoder_repeat * arch.n_classes,
                "out_shape": self.out_shape,
            },
        }
        if arch.network["kind"] == "custom":
            self.encoder = parts.make("model.encoder", arch.network["encoder"], **given["encoder"])
            self.decoder = parts.make("model.decoder", arch.network["decoder"], **given["decoder"])
        else:
            kind = arch.network["kind"]
            own = {key: value for key, value in arch.network.items() if key != "kind"}
            self.encoder = ENCODERS[kind](**given["encoder"], **own)
            self.decoder = DECODERS[kind](**given["decoder"], **own)
        self.prior = prior_of(
            arch.prior,
            arch.z_dim,
            arch.image_shape,
            arch.n_classes if arch.encoder_repeat else 0,
            self._encode_weighted,
        )
        one_hot = torch.eye(arch.n_classes)
        self.register_buffer("encoder_labels", one_hot.repeat(1, arch.encoder_repeat), persistent=False)
        self.register_buffer("decoder_labels", one_hot.repeat(1, arch.decoder_repeat), persistent=False)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x, y), (B, k) each."""
        return self._posterior(x, self.encoder_labels[y])

    def _encode_weighted(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The same as `encode`, with class weights (B, n_classes) instead of one class."""
        return self._posterior(x, weights.repeat(1, self.arch.encoder_repeat))

    def _posterior(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        out = self.encoder(2 * x - 1 if self.arch.pixels == "signed" else x, label)  # (B, 2k)
        mu, logvar = out.float().chunk(2, dim=1)
        if self.arch.logvar_max is not None:
            logvar = logvar.clamp(max=self.arch.logvar_max)
        return mu, 2 * logvar if self.arch.bug == "variance_as_std" else logvar

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """The parameters of p(x|z, y): (B, k), (B,) -> (B, p·C, H, W)."""
        return self.decoder(z, self.decoder_labels[y]).float()

    def noise_shapes(self, objective: Objective, n_images: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The random numbers that `terms` needs, by name: `normal` or `uniform`, and the shape."""
        z_dim = self.arch.z_dim
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "z": ("normal", (getattr(objective, "samples", 1), n_images, z_dim))
        }
        if getattr(self.likelihood, "binarizes", False):
            shapes["pixels"] = "uniform", (n_images, *self.arch.image_shape)
        if getattr(objective, "draws_prior", False):
            shapes |= {"prior": ("normal", (n_images, z_dim)), "chance": ("uniform", (n_images,))}
        return shapes

    def noise_in_training(self, noise: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The random numbers as the training code uses them: with the bug `no_noise`, z = mu."""
        return {**noise, "z": torch.zeros_like(noise["z"])} if self.arch.bug == "no_noise" else noise

    def terms(self, x: Tensor, y: Tensor, noise: Mapping[str, Tensor], beta: Tensor, progress: Tensor) -> Terms:
        """The terms of the objective for a batch.

        Args:
            noise: the random numbers that `noise_shapes` lists, by name.
        """
        n_samples, n_images, _ = noise["z"].shape
        target = (noise["pixels"] < x).to(x.dtype) if "pixels" in noise else x
        mu, logvar = self.encode(target, y)  # (B, k) each
        z = mu + (0.5 * logvar).exp() * noise["z"]  # (S, B, k)
        repeated = y if n_samples == 1 else y.repeat(n_samples)
        parameters = self.decode(z.flatten(0, 1), repeated)  # (S·B, p·C, H, W)
        again = target if n_samples == 1 else target.repeat(n_samples, 1, 1, 1)
        log_px = self.likelihood.log_prob(again, parameters).view(n_samples, n_images)
        parameters = parameters.unflatten(0, (n_samples, n_images))
        return Terms(x, parameters, self.likelihood, log_px, mu, logvar, z, self.prior, beta, progress, noise)

    def forward(
        self, objective: Objective, x: Tensor, y: Tensor, noise: Mapping[str, Tensor], schedule: Tensor
    ) -> Tensor:
        """Loss, SSE and KL of a batch, each a mean per image: (3,).

        Args:
            schedule: beta and the share of the training that is done, (2,).
        """
        terms = self.terms(x, y, self.noise_in_training(noise), schedule[0], schedule[1])
        loss = objective(terms)
        with torch.no_grad():  # the other two are only recorded
            sse, kl = terms.sse.mean(), terms.kl.mean()
        return torch.stack([loss, sse.detach(), kl.detach()])


_building = threading.Lock()  # modules draw their initial weights from torch's global generator


def build(arch: Architecture, seed: int) -> VAE:
    """A VAE whose initial weights depend only on its architecture and the seed.

    Raises:
        ConfigError: as for VAE.
    """
    with _building, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "init"))
        return VAE(arch)


def check_parts(config: Config, arch: Architecture, n_train: int) -> None:
    """Tries the user's own parts on two images. If a part itself raises an error, training reports it as a failed run.

    Raises:
        ConfigError: if a part cannot be made, or returns a value of the wrong shape.
    """
    own = {name: spec["_target_"] for name, spec in own_parts(config).items() if name != "dataset.part"}
    if not own:
        return

    def expect(name: str, returned: Any, shape: tuple[int, ...]) -> None:
        if name in own and (not isinstance(returned, Tensor) or returned.shape != shape):
            got = f"shape {tuple(returned.shape)}" if isinstance(returned, Tensor) else f"a {type(returned).__name__}"
            raise ConfigError(f"{name}: {own[name]} returned {got} for two images; expected a tensor of shape {shape}")

    try:
        model, objective = build(arch, 0), objective_of(config, n_train)
        x, y = torch.rand(2, *arch.image_shape), torch.zeros(2, dtype=torch.int64)
        shapes = model.noise_shapes(objective, 2)
        noise = {name: torch.rand(shape) for name, (_, shape) in shapes.items()}
        z, k = noise["z"][0], arch.z_dim
        with torch.no_grad():
            expect("model.encoder", model.encoder(x, model.encoder_labels[y]), (2, 2 * k))
            parameters = model.decoder(z, model.decoder_labels[y])
            expect("model.decoder", parameters, (2, *model.out_shape))
            expect("likelihood.part", model.likelihood.log_prob(x, parameters), (2,))
            expect("likelihood.part", model.likelihood.mean(parameters), tuple(x.shape))
            expect("prior.part", model.prior.log_prob(z), (2,))
            expect("prior.part", model.prior.sample(z, torch.rand(2)), (2, k))
            terms = model.terms(x, y, noise, torch.tensor(1.0), torch.tensor(0.0))
            expect("objective.part", objective(terms), ())
    except ConfigError:
        raise
    except Exception as error:
        log.info("%s", error)


def n_parameters(arch: Architecture) -> int:
    """The number of trained parameters of one run, counted without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in VAE(arch).parameters())


def model_bytes(arch: Architecture) -> int:
    """The memory in bytes that training needs for the model itself: parameters, gradients, two moments, and buffers.

    Raises:
        RuntimeError: if there are more parameters than torch can count.
    """
    with torch.device("meta"):
        model = VAE(arch)
    return 16 * sum(p.numel() for p in model.parameters()) + 4 * sum(b.numel() for b in model.buffers())


def resolve(
    config: Config, image_shape: tuple[int, int, int], n_classes: int, eigenvalues: Sequence[float] | np.ndarray
) -> Architecture:
    """Works out what depends on the data: z_dim, the label repeats, and whether the network fits the images.

    Args:
        eigenvalues: of the training covariance, descending (for `z_dim=pca`).

    Raises:
        ConfigError: if a setting does not fit the data.
    """
    input_dim = math.prod(image_shape)
    z_dim = _z_dim(config, input_dim, eigenvalues)
    placement = config.label_placement.kind
    if placement != "none" and n_classes < 2:
        raise ConfigError(
            f"label_placement={placement}: the dataset has only one class, so there is nothing to condition on; "
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
    if m.channels is not None and min(image_shape[1:]) >> len(m.channels) < 1:
        raise ConfigError(
            f"model.channels={m.channels}: too many layers for images of {image_shape[1]}x{image_shape[2]}, "
            f"because each layer halves them; allowed: at most {int(math.log2(min(image_shape[1:])))} layers"
        )
    return Architecture(
        image_shape=image_shape,
        n_classes=n_classes,
        z_dim=z_dim,
        encoder_repeat=repeat(placement in ("both", "encoder"), input_dim),
        decoder_repeat=repeat(placement in ("both", "decoder"), z_dim),
        network=_network(config),
        likelihood=_likelihood(config),
        prior=_given(kind=config.prior.kind, components=config.prior.components, part=config.prior.part),
        pixels=m.pixels,
        logvar_max=m.logvar_max,
        bug=config.bug.kind,
    )


def _z_dim(config: Config, input_dim: int, eigenvalues: Sequence[float] | np.ndarray) -> int:
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
                f"z_dim.ratio={z.ratio:g}: out of range; allowed: at most {input_dim}, the number of values of an image"
            )
        z_dim = max(1, round(input_dim / z.ratio))
    else:
        assert z.value is not None
        z_dim = z.value
    if z_dim > input_dim:
        raise ConfigError(
            f"z_dim.value={z_dim}: out of range; allowed: at most {input_dim}, the number of values of an image"
        )
    return z_dim


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _network(config: Config) -> dict[str, Any]:
    m = config.model
    if m.kind == "custom":
        return {"kind": "custom", "encoder": m.encoder, "decoder": m.decoder}
    names = {
        "mlp": ("hidden", "activation"),
        "conv": ("channels", "activation"),
        "resnet": ("channels", "blocks", "activation"),
        "linear": (),
    }
    return {"kind": m.kind, "init": m.init, **{name: getattr(m, name) for name in names[m.kind]}}


def _likelihood(config: Config) -> dict[str, Any]:
    own = config.likelihood
    spec = _given(kind=own.kind, targets=own.targets, part=own.part)
    if own.kind in ("gaussian", "laplace", "discretized_logistic"):
        spec |= {"x_var": config.x_var.kind, "value": config.x_var.value, "output": config.model.output}
        spec |= {"signed": config.model.pixels == "signed"}
    return spec
