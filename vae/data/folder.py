"""A folder of anyone's pictures."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae.config import ConfigError, Dataset
from vae.data import cache, pixels
from vae.data.files import complaining, root_of
from vae.data.images import HELD_OUT, ImageData, Labelled, hold_out_every_fifth, image_data

log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
WANTED = "allowed: a folder with train/<class>/* and test/<class>/*, or with <class>/*, or with pictures"
SPLITS = ("train", "test")
ONLY_CLASS = "all"  # of pictures that are in no class folder


class Picture(NamedTuple):
    label: str
    path: str  # under the root
    n_bytes: int
    changed: int  # time of the last change in ns

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.path)[1].lower()


def image_folder(config: Dataset) -> ImageData:
    """The pictures under the root, each made square and resized (`pixels.read`).

    They are `train/<class>/*` and `test/<class>/*`; or `<class>/*`, of which every fifth of a class is held out. In
    place of class folders there can be pictures, which then are of one class. Classes are sorted by name. Hidden files
    and files without a picture's suffix are ignored. The pixels are cached in `.vae-cache` under the root and decoded
    again when any file has changed.

    Raises:
        ConfigError: the folder has another layout, or a picture cannot be read.
    """
    root, where = root_of(config), f"dataset.root={config.root}"
    size, channels = config.size, config.channels
    assert size is not None
    assert channels is not None
    if not root.is_dir():
        raise ConfigError(f"{where}: {'is not a folder' if root.exists() else 'no such folder'}; {WANTED}")
    has_split = any((root / split).is_dir() for split in SPLITS)
    splits = {split: _list(where, root, split) for split in (SPLITS if has_split else (".",))}
    classes = sorted({picture.label for picture in next(iter(splits.values()))})
    for picture in splits.get("test", ()):
        if picture.label not in classes:
            raise ConfigError(f"{where}: there is test/{picture.label} but no train/{picture.label}")

    x = cache.arrays(
        root / ".vae-cache" / f"{size}x{size}x{channels}.npz",
        (pixels.VERSION, size, channels, splits),
        lambda: {split: _decode(where, root, pictures, size, channels) for split, pictures in splits.items()},
    )
    labelled: list[Labelled] = [
        (x[split], np.array([classes.index(picture.label) for picture in pictures]))
        for split, pictures in splits.items()
    ]
    with complaining(f"{where}: cannot be split; allowed: folders train and test, or five pictures of a class"):
        train, test = labelled if has_split else hold_out_every_fifth(*labelled[0])
    suffixes = ", ".join(sorted({picture.suffix for pictures in splits.values() for picture in pictures}))
    split = "its own split" if has_split else HELD_OUT
    source = f"{root}: {split}, {suffixes} files{pixels.conversion(config)}"
    return image_data(root.resolve().name, source, train, test, classes)


def _list(where: str, root: Path, split: str) -> list[Picture]:
    """The pictures of a split (a folder under the root), sorted by class and name."""
    if not (root / split).is_dir():
        raise ConfigError(f"{where}: has no folder {split}; {WANTED}")
    found: list[Picture] = []
    with complaining(f"{where}: cannot list {split}"):
        labels = sorted(e.name for e in os.scandir(root / split) if e.is_dir() and not e.name.startswith("."))
        for label in labels or [ONLY_CLASS]:
            folder = os.path.normpath(os.path.join(split, label if labels else ""))
            own = [
                Picture(
                    label, os.path.normpath(f"{folder}/{entry.name}"), entry.stat().st_size, entry.stat().st_mtime_ns
                )
                for entry in os.scandir(root / folder)
                if not entry.name.startswith(".") and entry.name.lower().endswith(SUFFIXES) and entry.is_file()
            ]
            if not own:
                here = f"{folder} holds" if folder != "." else "holds"
                kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
                raise ConfigError(f"{where}: {here} no pictures; allowed: {kinds}")
            found += sorted(own)
    return found


def _decode(where: str, root: Path, pictures: list[Picture], size: int, channels: int) -> np.ndarray:
    """(N, channels, size, size) uint8; raises ConfigError for the first picture that cannot be read."""
    log.info("decoding %d pictures of %s", len(pictures), root)
    out = np.empty((len(pictures), channels, size, size), dtype=np.uint8)

    def read(picture: Picture) -> np.ndarray:
        with complaining(f"{where}: cannot read the picture {picture.path}"):
            return pixels.read(root / picture.path, size, channels)

    # Pillow decodes without Python's lock, but opens files with it: with tiny pictures, threads would only wait for
    # each other (CIFAR-10 as JPEG: 4 s with one thread, 7 s with two).
    tiny = sum(picture.n_bytes for picture in pictures) < 8192 * len(pictures)
    with ThreadPoolExecutor(1 if tiny else min(8, os.cpu_count() or 1)) as pool:
        for i, image in enumerate(pool.map(read, pictures)):
            out[i] = image
    return out
