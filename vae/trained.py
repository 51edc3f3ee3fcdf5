"""A trained run, ready to encode, decode and sample."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vae.model import Architecture, build
from vae.parts import targets
from vae.priors import Standard
from vae.seeding import generator
from vae.stack import X_VAR

MODEL_FILE = "model.safetensors"
FORMAT = 2


class TrainedVAE:
    """One trained conditional VAE, ready to use.

    Images are (B, C, H, W) floats in [0, 1], or uint8; labels are (B,) integers, needed wherever a network was trained
    with them (`needs_label`).

    Args:
        state: the state dict of the network.
        trust: whether parts of someone else's own may be imported: building the network runs their code.

    Attributes:
        arch: what the network is built from.
        module: an ordinary nn.Module with `encoder`, `decoder`, `likelihood` and `prior`, in eval mode and frozen.
        log_x_var, x_var: variance of the decoder, and its logarithm as it was learned; None if it is not one number.
        classes: names of the labels.

    Raises:
        ValueError: for parts that are not to be imported.
        ConfigError: if a part cannot be imported or made.
    """

    def __init__(
        self,
        arch: Architecture,
        state: Mapping[str, Tensor],
        classes: tuple[str, ...],
        device: str | torch.device = "cpu",
        trust: bool = False,
    ) -> None:
        if arch.parts and not trust:
            names = ", ".join(sorted(set(targets(arch.parts))))
            raise ValueError(f"the model has parts of its own and would import {names}; trust=True allows it")
        self.arch, self.classes, self.device = arch, classes, torch.device(device)
        self.module = build(arch, 0)
        self.module.load_state_dict(dict(state))
        self.module.to(self.device).eval().requires_grad_(False)
        log_x_var = state.get(X_VAR)
        self.log_x_var = None if log_x_var is None else log_x_var.item()
        self.x_var = None if log_x_var is None else log_x_var.exp().item()

    @property
    def needs_label(self) -> bool:
        return self.arch.encoder_repeat + self.arch.decoder_repeat > 0

    def _pixels(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.arch.image_shape:
            raise ValueError(f"images are {tuple(x.shape[1:])} each, the model takes {self.arch.image_shape}")
        return x.to(self.device).float() / 255 if x.dtype == torch.uint8 else x.to(self.device)

    def _labels(self, y: Tensor | None, n: int, used: bool) -> Tensor:
        if y is None:
            if used:
                raise ValueError(f"labels are needed: the model was trained with them; there are {len(self.classes)}")
            y = torch.zeros(n, dtype=torch.int64)
        if y.shape != (n,):
            raise ValueError(f"labels are {tuple(y.shape)}, {n} images or latents need ({n},)")
        return y.to(self.device)

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x, y), (B, k) each.

        Raises:
            ValueError: for images of another shape, or missing labels.
        """
        return self.module.encode(self._pixels(x), self._labels(y, len(x), self.arch.encoder_repeat > 0))

    @torch.no_grad()
    def parameters(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The parameters of p(x|z, y), as the likelihood has them: (B, k) -> (B, p·C, H, W).

        Raises:
            ValueError: for missing labels.
        """
        return self.module.decode(z.to(self.device), self._labels(y, len(z), self.arch.decoder_repeat > 0))

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x|z, y): (B, k) -> (B, C, H, W). With `model.output=identity` values can leave [0, 1].

        Raises:
            ValueError: for missing labels.
        """
        return self.module.likelihood.mean(self.parameters(z, y))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images decoded from z = mu, (B, C, H, W)."""
        return self.decode(self.encode(x, y)[0], y)

    @torch.no_grad()
    def draw(self, n: int, gen: torch.Generator) -> Tensor:
        """Samples of the prior, (n, k)."""
        noise = torch.randn(n, self.arch.z_dim, generator=gen)
        chance = torch.empty(n) if isinstance(self.module.prior, Standard) else torch.rand(n, generator=gen)
        return self.module.prior.sample(noise.to(self.device), chance.to(self.device))

    def sample(self, y: Tensor | int | str | None = None, n: int = 1, seed: int = 0) -> Tensor:
        """Images decoded from samples of the prior, (n, C, H, W): of one class, of the given label each, or of any.

        Args:
            y: a class for all n by number or name, or (n,) labels. None draws the class of each if the decoder takes
                one.
            seed: of z (and of the classes drawn).

        Raises:
            ValueError: for a class that does not exist.
        """
        gen = generator(seed, "sample")
        if isinstance(y, Tensor):
            n = len(y)
        z = self.draw(n, gen)
        if y is None:
            y = torch.randint(self.arch.n_classes, (n,), generator=gen)
        elif not isinstance(y, Tensor):
            y = torch.full((n,), self.label(y))
        return self.decode(z, y)

    def label(self, name: int | str) -> int:
        """The number of a class.

        Raises:
            ValueError: if there is no such class; the message lists them.
        """
        if isinstance(name, str) and name in self.classes:
            return self.classes.index(name)
        if isinstance(name, int) and 0 <= name < len(self.classes):
            return name
        known = ", ".join(f"{i} ({c})" if str(i) != c else c for i, c in enumerate(self.classes))
        raise ValueError(f"{name!r} is not a class; there are {known}")

    def __repr__(self) -> str:
        arch = self.arch
        x_var = "" if self.x_var is None else f", x_var {self.x_var:.4g}"
        label = f"{arch.n_classes} classes" if self.needs_label else "no labels"
        return (
            f"TrainedVAE({arch.network['kind']}, images {arch.image_shape}, z_dim {arch.z_dim}, "
            f"{arch.likelihood['kind']}{x_var}, prior {arch.prior['kind']}, {label})"
        )


def pack(arch: Architecture, state: Mapping[str, Tensor], classes: Sequence[str]) -> bytes:
    """The file model.safetensors: the tensors by name, and what else `unpack` needs in its metadata.

    The same model gives the same bytes. The library writes the entries of its metadata in random order, so there is
    one entry, `vae`: JSON with the format's version, the architecture and the names of the classes.

    Args:
        state: the state dict of the network.
    """
    entry = {"format": FORMAT, "architecture": dataclasses.asdict(arch), "classes": list(classes)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    return save(tensors, {"vae": json.dumps(entry, sort_keys=True)})


def unpack(data: bytes, device: str | torch.device = "cpu", trust: bool = False) -> TrainedVAE:
    """The model in a file of `pack`. Nothing in the file is executed.

    Args:
        trust: whether parts of someone else's own may be imported.

    Raises:
        ValueError: if it is not such a file, or has parts that are not to be imported.
        ConfigError: if a part cannot be imported or made.
    """
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # safetensors: its length, the header
        entry = json.loads(header["__metadata__"]["vae"])
        if entry["format"] != FORMAT:
            raise ValueError(f"format {entry['format']}, this version reads {FORMAT}")
        described: dict[str, Any] = entry["architecture"]
        described["image_shape"] = tuple(described["image_shape"])
        arch = Architecture(**described)
        tensors, classes = load(data), tuple(entry["classes"])
        if not arch.parts:
            return TrainedVAE(arch, tensors, classes, device)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"not a model of this project ({' '.join(str(error).split())})") from error
    return TrainedVAE(arch, tensors, classes, device, trust)


def load_run(folder: str | Path, device: str | torch.device = "cpu", trust: bool = False) -> TrainedVAE:
    """The trained model of a finished run, from its folder; nothing in the folder is executed.

    Args:
        trust: whether parts of someone else's own may be imported, which runs their code.

    Raises:
        FileNotFoundError: if the run is not finished, or diverged.
        ValueError: if the model's file is damaged, or has parts that are not to be imported.
    """
    folder = Path(folder)
    try:
        result = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no finished run: there is no result.json") from None
    if result["model_sha256"] is None:
        raise FileNotFoundError(f"{folder} has no model: the run diverged")
    data = (folder / MODEL_FILE).read_bytes()
    if hashlib.sha256(data).hexdigest() != result["model_sha256"]:
        raise ValueError(f"{folder / MODEL_FILE} is damaged: its checksum is not the one in result.json")
    return unpack(data, device, trust)
