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

from vae.layers import generator
from vae.model import Architecture, ConditionalVAE

MODEL_FILE = "model.safetensors"
FORMAT = 1


class TrainedVAE:
    """One trained conditional VAE, with ordinary batches: no run axis here.

    Images are (B, C, H, W) floats in [0, 1], or uint8; labels are (B,) integers, needed wherever a network was trained
    with them (`needs_label`).

    Args:
        parameters: those of the networks by name, without a run axis, and `log_x_var` (a scalar).

    Attributes:
        arch: shapes and kinds.
        network: the encoder and the decoder, with a run axis of one.
        log_x_var, x_var: variance of the decoder, and its logarithm as it was learned.
        classes: names of the labels.
    """

    def __init__(
        self,
        arch: Architecture,
        parameters: Mapping[str, Tensor],
        classes: tuple[str, ...],
        device: str | torch.device = "cpu",
    ) -> None:
        self.arch, self.classes, self.device = arch, classes, torch.device(device)
        weights = dict(parameters)
        log_x_var = weights.pop("log_x_var")
        self.log_x_var, self.x_var = log_x_var.item(), log_x_var.exp().item()
        self.network = ConditionalVAE(arch, [generator(0, "init")])
        self.network.load_state_dict({name: value[None] for name, value in weights.items()})
        self.network.to(self.device).eval().requires_grad_(False)

    @property
    def needs_label(self) -> bool:
        return self.arch.encoder_repeat + self.arch.decoder_repeat > 0

    def _flat(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.arch.image_shape:
            raise ValueError(f"images are {tuple(x.shape[1:])} each, the model takes {self.arch.image_shape}")
        scaled = x.to(self.device).float() / 255 if x.dtype == torch.uint8 else x.to(self.device)
        return scaled.reshape(1, len(x), -1)  # (1, B, D)

    def _labels(self, y: Tensor | None, n: int, used: bool) -> Tensor:
        if y is None:
            if used:
                raise ValueError(f"labels are needed: the model was trained with them; there are {len(self.classes)}")
            y = torch.zeros(n, dtype=torch.int64)
        if y.shape != (n,):
            raise ValueError(f"labels are {tuple(y.shape)}, {n} images or latents need ({n},)")
        return y.to(self.device)[None]  # (1, B)

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x, y), (B, k) each.

        Raises:
            ValueError: for images of another shape, or missing labels.
        """
        mu, logvar = self.network.encode(self._flat(x), self._labels(y, len(x), self.arch.encoder_repeat > 0))
        return mu[0], logvar[0]

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x|z, y): (B, k) -> (B, C, H, W). Values can leave [0, 1] where `model.output` is identity.

        Raises:
            ValueError: for missing labels.
        """
        x_hat = self.network.decode(z.to(self.device)[None], self._labels(y, len(z), self.arch.decoder_repeat > 0))
        return x_hat.reshape(len(z), *self.arch.image_shape)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images decoded from z = mu, (B, C, H, W)."""
        return self.decode(self.encode(x, y)[0], y)

    def sample(self, y: Tensor | int | None = None, n: int = 1, seed: int = 0) -> Tensor:
        """Images decoded from z ~ N(0, I), (n, C, H, W): of one class, of the given label each, or of any.

        Args:
            y: a class for all n, or (n,) labels. None draws the class of each where the decoder takes one.
            seed: of z (and of the classes drawn).
        """
        gen = generator(seed, "sample")
        if isinstance(y, Tensor):
            n = len(y)
        z = torch.randn(n, self.arch.z_dim, generator=gen)
        if y is None:
            y = torch.randint(self.arch.n_classes, (n,), generator=gen)
        elif isinstance(y, int):
            y = torch.full((n,), y)
        return self.decode(z, y)


def pack(arch: Architecture, parameters: Mapping[str, Tensor], classes: Sequence[str]) -> bytes:
    """The file model.safetensors: the tensors by name, and what else `unpack` needs in its metadata.

    The same model gives the same bytes. The library writes the entries of its metadata in random order, so there is
    one entry, `vae`: JSON with the format's version, the architecture and the names of the classes.

    Args:
        parameters: those of one run, without a run axis, and `log_x_var` (a scalar).
    """
    entry = {"format": FORMAT, "architecture": dataclasses.asdict(arch), "classes": list(classes)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    return save(tensors, {"vae": json.dumps(entry, sort_keys=True)})


def unpack(data: bytes, device: str | torch.device = "cpu") -> TrainedVAE:
    """The model in a file of `pack`. Nothing in the file is executed.

    Raises:
        ValueError: if it is not such a file.
    """
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # safetensors: its length, the header
        entry = json.loads(header["__metadata__"]["vae"])
        if entry["format"] != FORMAT:
            raise ValueError(f"format {entry['format']}, this version reads {FORMAT}")
        arch: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["architecture"].items()}
        return TrainedVAE(Architecture(**arch), load(data), tuple(entry["classes"]), device)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"not a model of this project ({' '.join(str(error).split())})") from error


def load_run(folder: str | Path, device: str | torch.device = "cpu") -> TrainedVAE:
    """The trained model of a finished run, from its folder; nothing in the folder is executed.

    Raises:
        FileNotFoundError: if the run is not finished, or diverged.
        ValueError: if the model's file is damaged.
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
    return unpack(data, device)
