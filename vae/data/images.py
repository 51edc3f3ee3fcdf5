"""A dataset in memory, and how its images are split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vae.config import ConfigError

HELD_OUT = "every fifth image of a class is held out"  # in `ImageData.source`
Labelled = tuple[np.ndarray, np.ndarray]  # images (N, C, H, W) uint8, labels (N,)


@dataclass(frozen=True, eq=False)
class ImageData:
    """N training, V validation and M held-out images of C channels, H rows and W columns."""

    name: str  # the dataset's kind; for image_folder and npz the folder's or file's own name, for torchvision its class
    source: str  # one line: package and version, or folder, and how the images were split
    train_x: torch.Tensor  # (N, C, H, W) uint8
    train_y: torch.Tensor  # (N,) int64, indices of `classes`
    test_x: torch.Tensor  # (M, C, H, W) uint8
    test_y: torch.Tensor  # (M,) int64
    classes: tuple[str, ...]
    content_hash: str  # sha256 over shapes, pixels, labels, class names and split: the same wherever the files lie
    val_x: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (V, C, H, W) uint8; V = 0 by default
    val_y: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (V,) int64

    def __post_init__(self) -> None:
        if not len(self.val_x):  # empty tensors of the right shape, so that no caller needs a special case
            object.__setattr__(self, "val_x", self.train_x[:0])
            object.__setattr__(self, "val_y", self.train_y[:0])
        for x, y in ((self.train_x, self.train_y), (self.val_x, self.val_y), (self.test_x, self.test_y)):
            assert x.dtype == torch.uint8, x.dtype
            assert y.dtype == torch.int64, y.dtype
            assert x.ndim == 4, x.shape
            assert x.shape[1:] == self.train_x.shape[1:], (x.shape, self.train_x.shape)
            assert y.shape == (len(x),), (x.shape, y.shape)
            assert len(y) == 0 or 0 <= int(y.min()) <= int(y.max()) < len(self.classes), (y.min(), y.max())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        c, h, w = self.train_x.shape[1:]
        return c, h, w

    @property
    def input_dim(self) -> int:
        """D = C·H·W, the number of values of one image."""
        c, h, w = self.image_shape
        return c * h * w

    @property
    def n_classes(self) -> int:
        return len(self.classes)


def image_data(
    name: str, source: str, train: Labelled, test: Labelled, classes: Sequence[str], val: Labelled | None = None
) -> ImageData:
    """An ImageData from arrays, with its content hash. Labels are indices of `classes`."""
    arrays = [
        np.ascontiguousarray(array, dtype)
        for split in ((train, test) if val is None else (train, test, val))
        for array, dtype in zip(split, ("u1", "<i8"), strict=True)
    ]
    digest = hashlib.sha256(repr((tuple(classes), [array.shape for array in arrays])).encode())
    for array in arrays:
        digest.update(array.data)
    train_x, train_y, test_x, test_y, *validation = map(torch.from_numpy, arrays)
    return ImageData(name, source, train_x, train_y, test_x, test_y, tuple(classes), digest.hexdigest(), *validation)


def hold_out_every_fifth(x: np.ndarray, y: np.ndarray) -> tuple[Labelled, Labelled]:
    """Training and held-out images of a dataset that comes without a split.

    Every fifth image of a class is held out, in their order. x: (N, ...), y: (N,).

    Raises:
        ValueError: no class has five images.
    """
    held_out = np.zeros(len(y), dtype=bool)  # (N,)
    for label in np.unique(y):
        held_out[np.flatnonzero(y == label)[4::5]] = True
    if not held_out.any():
        raise ValueError("no class has five images, so none can be held out")
    return (x[~held_out], y[~held_out]), (x[held_out], y[held_out])


def split_validation(data: ImageData, share: float) -> ImageData:
    """The same dataset with a share of each class's training images (rounded, at least one) as validation images.

    The choice depends on nothing but the labels, so all runs on the dataset have the same validation images.

    Args:
        share: above 0 and below 1.

    Raises:
        ConfigError: a class would keep no training images.
    """
    x, y = data.train_x.numpy(), data.train_y.numpy()  # (N, C, H, W), (N,)
    chosen = np.zeros(len(y), dtype=bool)  # (N,)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        count = max(1, round(share * len(own)))
        if count == len(own):
            raise ConfigError(
                f"dataset.validation={share:g}: class {data.classes[label]} has only {len(own)} training image(s), "
                "none of which would be left; allowed: 0, or a dataset with more images of each class"
            )
        # RandomState, because numpy promises that its numbers never change
        chosen[np.random.RandomState(label).permutation(own)[:count]] = True
    return image_data(
        data.name,
        f"{data.source}; {share * 100:g} % of the training images of each class are validation images",
        (x[~chosen], y[~chosen]),
        (data.test_x.numpy(), data.test_y.numpy()),
        data.classes,
        (x[chosen], y[chosen]),
    )
