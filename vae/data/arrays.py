"""Arrays of one's own, from an .npz file."""

from __future__ import annotations

import numpy as np

from vae.config import ConfigError, Dataset
from vae.data import pixels
from vae.data.files import complaining, root_of
from vae.data.images import ImageData, image_data

WANTED = "allowed: an .npz file with x_train and x_test, and y_train and y_test if there are labels"
SHAPES = "(N, H, W), (N, H, W, 1), (N, H, W, 3), (N, 1, H, W) or (N, 3, H, W)"


def npz(config: Dataset) -> ImageData:
    """`x_train` and `x_test` of an .npz file, with `y_train` and `y_test` unless all images are of one class.

    Images are uint8, or floats in [0, 1], in one of SHAPES. Labels are whole numbers or texts, (N,) or (N, 1); the
    classes are those of y_train, sorted.

    Raises:
        ConfigError: the file cannot be read, lacks an array, or an array does not hold images or labels.
    """
    path, where = root_of(config), f"dataset.root={config.root}"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file; {WANTED}")
    with complaining(f"{where}: cannot be read as .npz; {WANTED}"), np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in ("x_train", "y_train", "x_test", "y_test") if key in stored}
        keys = ", ".join(stored.files) or "nothing"
    labelled = "y_train" in arrays or "y_test" in arrays
    for key in ("x_train", "x_test", *(("y_train", "y_test") if labelled else ())):
        if key not in arrays:
            raise ConfigError(f"{where}: has no {key}, it holds {keys}; {WANTED}")

    train_x, test_x = (_images(f"{where}: {key}", arrays[key]) for key in ("x_train", "x_test"))  # (N, C, H, W)
    if train_x.shape[1:] != test_x.shape[1:]:
        shapes = f"{arrays['x_train'].shape} and {arrays['x_test'].shape}"
        raise ConfigError(f"{where}: x_train and x_test hold images of different shapes, {shapes}; allowed: the same")
    if labelled:
        train_y = _labels(f"{where}: y_train", arrays["y_train"], len(train_x))
        test_y = _labels(f"{where}: y_test", arrays["y_test"], len(test_x))
        values = np.unique(train_y)
        unseen = np.setdiff1d(test_y, values)
        if unseen.size:
            raise ConfigError(f"{where}: y_test holds {unseen[0]}, which y_train does not; allowed: its labels")
        train_y, test_y = np.searchsorted(values, train_y), np.searchsorted(values, test_y)
        classes = [str(value) for value in values]
    else:
        train_y, test_y, classes = np.zeros(len(train_x)), np.zeros(len(test_x)), ["all"]
    source = f"{path}: its own split{pixels.conversion(config)}"
    train, test = (pixels.fit(train_x, config), train_y), (pixels.fit(test_x, config), test_y)
    return image_data(path.stem, source, train, test, classes)


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
