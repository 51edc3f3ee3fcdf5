"""Arrays of one's own, from an .npz file."""

from __future__ import annotations

import numpy as np

from vae.config import ConfigError, Dataset
from vae.data import pixels
from vae.data.files import complaining, root_of
from vae.data.images import HELD_OUT, ImageData, hold_out_every_fifth, image_data

WANTED = "allowed: an .npz file with x_train and x_test, or x_train alone, and y_train and y_test if there are labels"
SHAPES = "(N, H, W), (N, H, W, 1), (N, H, W, 3), (N, 1, H, W) or (N, 3, H, W)"


def npz(config: Dataset) -> ImageData:
    """`x_train` and `x_test` of an .npz file, with `y_train` and `y_test` unless all images are of one class.

    Without x_test and y_test, every fifth image of a class is held out. Images are uint8, or floats in [0, 1], in one
    of SHAPES. Labels are whole numbers or texts, (N,) or (N, 1); the classes are those of y_train, sorted.

    Raises:
        ConfigError: the file cannot be read, lacks an array, or an array does not hold images or labels.
    """
    path, where = root_of(config), f"dataset.root={config.root}"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file; {WANTED}")
    with complaining(f"{where}: cannot be read as .npz; {WANTED}"), np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in ("x_train", "y_train", "x_test", "y_test") if key in stored}
        keys = ", ".join(stored.files) or "nothing"
    splits = ("train", "test") if {"x_test", "y_test"} & arrays.keys() else ("train",)
    labelled = bool({"y_train", "y_test"} & arrays.keys())
    for key in (f"{letter}_{split}" for letter in ("xy" if labelled else "x") for split in splits):
        if key not in arrays:
            raise ConfigError(f"{where}: has no {key}, it holds {keys}; {WANTED}")

    images = [_images(f"{where}: x_{split}", arrays[f"x_{split}"]) for split in splits]  # (N, C, H, W) each
    if images[0].shape[1:] != images[-1].shape[1:]:
        shapes = f"{arrays['x_train'].shape} and {arrays['x_test'].shape}"
        raise ConfigError(f"{where}: x_train and x_test hold images of different shapes, {shapes}; allowed: the same")
    labels, classes = [np.zeros(len(x), np.int64) for x in images], ["all"]
    if labelled:
        found = [
            _labels(f"{where}: y_{split}", arrays[f"y_{split}"], len(x))
            for split, x in zip(splits, images, strict=True)
        ]
        values = np.unique(found[0])
        unseen = np.setdiff1d(found[-1], values)
        if unseen.size:
            raise ConfigError(f"{where}: y_test holds {unseen[0]}, which y_train does not; allowed: its labels")
        labels, classes = [np.searchsorted(values, y) for y in found], [str(value) for value in values]
    own = [(pixels.fit(x, config), y) for x, y in zip(images, labels, strict=True)]
    with complaining(f"{where}: x_train cannot be split; allowed: x_test, or five images of a class"):
        train, test = own if len(own) == 2 else hold_out_every_fifth(*own[0])
    split = "its own split" if len(own) == 2 else HELD_OUT
    return image_data(path.stem, f"{path}: {split}{pixels.conversion(config)}", train, test, classes)


def _images(what: str, x: np.ndarray) -> np.ndarray:
    """A user's images as (N, C, H, W) uint8."""
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise ConfigError(f"{what} is of {x.dtype}; allowed: uint8, or floats in [0, 1]")
    try:
        x = pixels.channels_first(x)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}; allowed: {SHAPES}") from None
    if x.size == 0:
        raise ConfigError(f"{what} is empty, {x.shape}; allowed: at least one image")
    if x.dtype == np.uint8:
        return x
    low, high = x.min(), x.max()  # NaN if any value is
    if not (low >= 0 and high <= 1):
        raise ConfigError(f"{what} is of {x.dtype} from {low:g} to {high:g}; allowed: floats in [0, 1], or uint8")
    return (x * 255).round().astype(np.uint8)


def _labels(what: str, y: np.ndarray, n: int) -> np.ndarray:
    """A user's labels of n images as (n,)."""
    if y.dtype.kind not in "iuU":
        raise ConfigError(f"{what} is of {y.dtype}; allowed: whole numbers or texts")
    if y.shape not in ((n,), (n, 1)):
        raise ConfigError(f"{what} is of shape {y.shape}, but there are {n} images; allowed: ({n},)")
    return y.reshape(n)
