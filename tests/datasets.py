"""Small datasets made by hand, for the tests of vae/data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vae.config import ConfigError, Dataset
from vae.data import ImageData, load
from vae.data.images import image_data


def folder_config(root: Path, size: int = 8, channels: int = 3) -> Dataset:
    return Dataset(kind="image_folder", root=str(root), size=size, channels=channels)


def save(path: Path, picture: Image.Image | np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(path, **options)
    return path


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    """The bytes of MNIST's file format: 0, 0, type (8: bytes), dimensions; then each extent as 4 bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def mnist_files(n_train: int = 20, n_test: int = 10) -> dict[str, bytes]:
    """A small MNIST."""
    return {
        "train-images-idx3-ubyte": idx(noise(0, n_train, 28, 28)),
        "train-labels-idx1-ubyte": idx(np.arange(n_train, dtype=np.uint8) % 10),
        "t10k-images-idx3-ubyte": idx(noise(1, n_test, 28, 28)),
        "t10k-labels-idx1-ubyte": idx(np.arange(n_test, dtype=np.uint8) % 10),
    }


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def one_line_error(config: Dataset) -> str:
    """The message with which `load` refuses the config."""
    with pytest.raises(ConfigError) as caught:
        load(config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("dataset")
    return message


def make(train_x: np.ndarray, train_y: list[int], test_x: np.ndarray, test_y: list[int], n: int) -> ImageData:
    """A dataset of n classes from arrays of shape (images, C, H, W)."""
    return image_data(
        "made", "by hand", (train_x, np.array(train_y)), (test_x, np.array(test_y)), tuple(map(str, range(n)))
    )
