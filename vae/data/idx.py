"""The idx files of MNIST and its relatives, as they are or compressed with gzip, whatever their checksum.

torchvision compares a download with the checksum of one publisher, and others compress the same images again.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np

from vae.data.images import Labelled

DATASETS = ("MNIST", "FashionMNIST", "KMNIST")  # classes of torchvision.datasets whose files have these names


def find(root: Path, name: str) -> list[Path] | None:
    """The files of a dataset: training images and labels, held-out images and labels. None if any is missing.

    They are in the root or in <root>/<name>/raw, where torchvision puts them.
    """
    stems = [f"{split}-{what}" for split in ("train", "t10k") for what in ("images?idx3", "labels?idx1")]
    for folder in (root / name / "raw", root):
        files = [f for stem in stems for f in [*folder.glob(f"{stem}-ubyte"), *folder.glob(f"{stem}-ubyte.gz")][:1]]
        if len(files) == len(stems):
            return files
    return None


def read(path: Path) -> np.ndarray:
    """The array of bytes in an idx file: 0, 0, 8 for bytes, the number of axes; each length in 4 bytes; the values.

    Raises:
        ValueError: if it is not such a file.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    head = 4 + 4 * content[3] if len(content) > 3 else 4
    shape = tuple(np.frombuffer(content[4:head], ">u4").tolist()) if content[:3] == b"\0\0\x08" else ()
    if not shape or len(content) != head + math.prod(shape):
        raise ValueError(f"{path.name} is not an idx file of bytes, or is incomplete")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def splits(files: list[Path]) -> list[Labelled]:
    """Images (N, 1, H, W) and labels (N,), for training and held out; files as `find` gives them."""
    train_x, train_y, test_x, test_y = map(read, files)
    return [(train_x[:, None], train_y.astype(np.int64)), (test_x[:, None], test_y.astype(np.int64))]
