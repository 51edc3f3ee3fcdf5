"""Pictures and arrays of others as pixels: uint8, channels first, of the size and the number of channels wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vae.config import Dataset

VERSION = 1  # raise when the same files give other pixels than before: caches of pixels depend on it


def read(path: Path, size: int | None = None, channels: int = 3) -> np.ndarray:
    """One picture as its viewer shows it: turned as EXIF says, first frame, transparent parts over black.

    Args:
        size: height and width to crop to a centred square and resize to (bilinear, antialiased); None leaves it as is.
        channels: 3 for colour; 1 for grey (0.299 R + 0.587 G + 0.114 B).

    Returns:
        (channels, H, W) uint8.

    Raises:
        Exception: of almost any type, if Pillow cannot read the file.
    """
    with Image.open(path) as image:
        if size is not None:
            # Large JPEGs are decoded at 1/2, 1/4 or 1/8, but never below twice the size wanted, where it would show.
            image.draft(None, (2 * size, 2 * size))
        return convert(image, size, channels)


def convert(image: Image.Image, size: int | None, channels: int) -> np.ndarray:
    """The same for an opened picture."""
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)


def channels_first(x: np.ndarray) -> np.ndarray:
    """Images as (N, C, H, W).

    Args:
        x: (N, H, W), (N, H, W, C) or (N, C, H, W), where C is 1 or 3.

    Raises:
        ValueError: another shape, or one that can be read in two ways.
    """
    if x.ndim == 3:
        return x[:, None]
    first, last = (x.ndim == 4 and x.shape[axis] in (1, 3) for axis in (1, 3))
    if first and last:
        raise ValueError(f"shape {x.shape} does not tell which axis holds the channels")
    if not (first or last):
        raise ValueError(f"shape {x.shape} is not one of images")
    return x if first else x.transpose(0, 3, 1, 2)


def fit(x: np.ndarray, config: Dataset) -> np.ndarray:
    """Images (N, C, H, W) converted to `dataset.size` and `dataset.channels`; null leaves them as they are."""
    size, channels = config.size, config.channels or x.shape[1]
    if (size is None or x.shape[2:] == (size, size)) and channels == x.shape[1]:
        return x
    pictures = (Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in x)
    return np.stack([convert(picture, size, channels) for picture in pictures])


def conversion(config: Dataset) -> str:
    """What `fit` does, for `ImageData.source`."""
    size = f", resized to {config.size}x{config.size}" if config.size else ""
    return size + {None: "", 1: ", grey", 3: ", colour"}[config.channels]
