"""Sheets of images: samples by class, reconstructions under their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vae.data import ImageData
from vae.trained import TrainedVAE

N_COLUMNS = 10
MAX_ROWS = 20
GAP = 2
SHOWN = 56  # an image is enlarged by a whole factor to about so many pixels


def sheet(rows: Tensor, labels: Sequence[str]) -> Image.Image:
    """A sheet of images, a label before each row.

    Args:
        rows: (R, N, C, H, W), values clipped to [0, 1].
        labels: one a row.
    """
    n_rows, n_columns, _, height, width = rows.shape
    factor = max(1, round(SHOWN / height))
    font = ImageFont.load_default(size=14)
    left = 8 + max(round(font.getlength(label)) for label in labels) + 8 if any(labels) else GAP
    h, w = height * factor + GAP, width * factor + GAP
    canvas = Image.new("RGB", (left + n_columns * w, GAP + n_rows * h), "white")
    draw = ImageDraw.Draw(canvas)
    levels = (rows.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()  # (R, N, H, W, C)
    for r in range(n_rows):
        draw.text((8, GAP + r * h + (h - GAP) // 2), labels[r], fill="black", font=font, anchor="lm")
        for n in range(n_columns):
            pixels = levels[r, n]
            image = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
            image = image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
            canvas.paste(image, (left + n * w, GAP + r * h))
    return canvas


def sample_rows(model: TrainedVAE, n_columns: int = N_COLUMNS) -> tuple[Tensor, list[str]]:
    """Samples from the prior and their row labels, (R, N, C, H, W): a row a class, a column one z throughout.

    Where the decoder takes no label, ten rows of other latents each.
    """
    seen = model.arch.decoder_repeat > 0
    if seen:
        labels = list(model.classes[:MAX_ROWS])
        rows = [model.sample(c, n=n_columns) for c in range(len(labels))]
        return torch.stack(rows), labels
    images = model.sample(n=N_COLUMNS * n_columns)
    return images.reshape(N_COLUMNS, n_columns, *images.shape[1:]), [""] * N_COLUMNS


def reconstruction_rows(model: TrainedVAE, data: ImageData, n_columns: int = N_COLUMNS) -> tuple[Tensor, list[str]]:
    """Held-out images above their reconstructions from z = mu, (4, N, C, H, W), evenly spread over the classes."""
    by_class = torch.argsort(data.test_y, stable=True)
    n = min(2 * n_columns, len(by_class))
    picked = by_class[torch.linspace(0, len(by_class) - 1, n).long()]
    x, y = data.test_x[picked].float() / 255, data.test_y[picked]
    x_hat = model.reconstruct(x, y).cpu()
    if n < 2 * n_columns:
        return torch.stack([x, x_hat]), ["input", "output"]
    half = n_columns
    return torch.stack([x[:half], x_hat[:half], x[half:], x_hat[half:]]), ["input", "output"] * 2
