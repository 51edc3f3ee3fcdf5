"""All datasets by name. To add one, write a function from its settings to an ImageData and name it here."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from vae.config import ConfigError, Dataset
from vae.data.arrays import npz
from vae.data.embedded import mnist_5k, photos
from vae.data.folder import image_folder
from vae.data.from_torchvision import torchvision_dataset
from vae.data.images import ImageData, split_validation
from vae.parts import make


def own(config: Dataset) -> ImageData:
    """The images that a function of the user's own returns."""
    assert config.part is not None
    data = make("dataset.part", config.part)
    if not isinstance(data, ImageData):
        raise ConfigError(
            f"dataset.part: {config.part['_target_']} returned a {type(data).__name__}; expected vae.data.ImageData"
        )
    return data


LOADERS: dict[str, Callable[[Dataset], ImageData]] = {
    "mnist_5k": mnist_5k,
    "photos": photos,
    "mnist": torchvision_dataset,
    "fashion_mnist": torchvision_dataset,
    "cifar10": torchvision_dataset,
    "torchvision": torchvision_dataset,
    "image_folder": image_folder,
    "npz": npz,
    "custom": own,
}


def load(config: Dataset) -> ImageData:
    """Reads a dataset, from its cache if there is one.

    Args:
        config: checked by `vae.config.validate`.

    Raises:
        ConfigError: the images are missing, cannot be read or cannot be split; one line that names the place.
    """
    # Pillow and torchvision warn of oddities in files and of their own deprecations, on which the user cannot act.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = LOADERS[config.kind](config)
    return split_validation(data, config.validation) if config.validation else data
