"""A trained run, ready to encode, decode and sample."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae.layers import generator
from vae.model import Architecture, ConditionalVAE


class TrainedVAE:
    """One trained conditional VAE, with ordinary batches: no run axis here.

    Images are (B, C, H, W) floats in [0, 1], or uint8; labels are (B,) integers, needed wherever a network was trained
    with them (`needs_label`).

    Attributes:
        arch: shapes and kinds.
        x_var: variance of the decoder.
        classes: names of the labels.
    """

    def __init__(
        self, arch: Architecture, parameters: dict[str, Tensor], classes: tuple[str, ...], device: str | torch.device
    ) -> None:
        self.arch, self.classes, self.device = arch, classes, torch.device(device)
        weights = dict(parameters)
        self.x_var = weights.pop("log_x_var").exp().item()
        self._model = ConditionalVAE(arch, [generator(0, "init")])
        self._model.load_state_dict(weights)
        self._model.to(self.device).eval().requires_grad_(False)

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
        mu, logvar = self._model.encode(self._flat(x), self._labels(y, len(x), self.arch.encoder_repeat > 0))
        return mu[0], logvar[0]

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x|z, y): (B, k) -> (B, C, H, W). Values can leave [0, 1] where `model.output` is identity.

        Raises:
            ValueError: for missing labels.
        """
        x_hat = self._model.decode(z.to(self.device)[None], self._labels(y, len(z), self.arch.decoder_repeat > 0))
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


def pack(arch: Architecture, parameters: dict[str, Tensor], classes: tuple[str, ...]) -> bytes:
    """The file model.pt: what `unpack` needs, and nothing that could be executed."""
    buffer = io.BytesIO()
    content: dict[str, Any] = {
        "architecture": dataclasses.asdict(arch),
        "parameters": parameters,
        "classes": list(classes),
    }
    torch.save(content, buffer)
    return buffer.getvalue()


def unpack(data: bytes, device: str | torch.device = "cpu") -> TrainedVAE:
    content = torch.load(io.BytesIO(data), weights_only=True)
    arch: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content["architecture"].items()}
    return TrainedVAE(Architecture(**arch), content["parameters"], tuple(content["classes"]), device)


def load_run(folder: str | Path, device: str | torch.device = "cpu") -> TrainedVAE:
    """The trained model of a finished run, from its folder; nothing in the folder is executed.

    Raises:
        FileNotFoundError: if the run is not finished.
        ValueError: if the model's file is damaged.
    """
    folder = Path(folder)
    try:
        result = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no finished run: there is no result.json") from None
    data = (folder / "model.pt").read_bytes()
    if hashlib.sha256(data).hexdigest() != result["model_sha256"]:
        raise ValueError(f"{folder / 'model.pt'} is damaged: its checksum is not the one in result.json")
    return unpack(data, device)
