"""Uses a trained model: draws samples, and reconstructs or encodes your own images.

Every function raises ValueError (or ConfigError, a kind of ValueError) for input that cannot be used. The message is
one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.store import RunFolder
from vae.config import Dataset
from vae.data import pixels
from vae.data.files import complaining
from vae.data.folder import SUFFIXES
from vae.sheet import Sheet
from vae.trained import TrainedVAE, load_run

COLUMNS = 10  # columns of a sheet


def load(folder: RunFolder) -> TrainedVAE:
    """The model of a run."""
    try:
        return load_run(folder.path)
    except FileNotFoundError as e:
        raise ValueError(str(e)) from None


def class_of(model: TrainedVAE, label: str) -> int:
    """The index of a class, by its name."""
    if not model.needs_label:
        raise ValueError(f"--label {label}: the model was trained without labels; allowed: no label")
    if label not in model.classes:
        raise ValueError(f"--label {label}: no such class; allowed: {', '.join(model.classes)}")
    return model.classes.index(label)


def sample(model: TrainedVAE, label: str | None, n: int, seed: int, out: Path) -> None:
    """Draws n samples into a PNG file, all of one class, or of any class if no label is given."""
    if n < 1:
        raise ValueError(f"-n {n}: out of range; allowed: a whole number >= 1")
    y = None if label is None else class_of(model, label)
    _draw([("", _bytes(model.sample(y, n, seed)))], out)


def reconstruct(model: TrainedVAE, places: Sequence[str], label: str | None, out: Path) -> None:
    """Draws images, with their reconstructions below them, into a PNG file."""
    x, y, _ = images(model, places, label)
    _draw([("original", x.numpy()), ("reconstruction", _bytes(model.reconstruct(x, y)))], out)


def encode(model: TrainedVAE, places: Sequence[str], label: str | None, out: Path) -> None:
    """Writes an .npz file with `mu` and `logvar`, (N, k) each, and `names`, (N,), of the images."""
    x, y, names = images(model, places, label)
    mu, logvar = model.encode(x, y)
    with open(out, "wb") as file:  # np.savez would append .npz to another name
        np.savez(file, mu=mu.numpy(), logvar=logvar.numpy(), names=np.array(names))


def images(model: TrainedVAE, places: Sequence[str], label: str | None) -> tuple[Tensor, Tensor | None, list[str]]:
    """Images (N, C, H, W) uint8 in the shape the model takes, their labels (N,) or None, and their names.

    Args:
        places: pictures, folders of pictures, or .npz files with `x` and, for labels, `y`.
        label: class of all images. Without it, an image has the class that its folder is named after.
    """
    found = [item for place in places for item in _read(model, Path(place))]
    if not found:
        raise ValueError(f"{', '.join(places)}: no pictures; allowed: {', '.join(s[1:] for s in SUFFIXES)}, or .npz")
    x = torch.from_numpy(np.stack([image for image, _, _ in found]))
    names = [name for _, _, name in found]
    if not model.needs_label:
        if label is not None:
            class_of(model, label)
        return x, None, names
    if label is not None:
        return x, torch.full((len(x),), class_of(model, label)), names
    unknown = [name for _, own, name in found if own not in model.classes]
    if unknown:
        raise ValueError(
            f"{unknown[0]}: needs a label; allowed: --label with one of {', '.join(model.classes)}, "
            "or a folder of that name"
        )
    return x, torch.tensor([model.classes.index(own) for _, own, _ in found]), names


def _read(model: TrainedVAE, place: Path) -> Iterable[tuple[np.ndarray, str, str]]:
    """Images (C, H, W) uint8, with the names of their classes ("" if unknown) and their own names."""
    channels, height, width = model.arch.image_shape
    if not place.exists():
        raise ValueError(f"{place}: no such file or folder; allowed: pictures, folders of pictures, .npz files")
    if place.suffix == ".npz":
        with complaining(f"{place}: cannot be read; allowed: an .npz file with x and, for labels, y"):
            with np.load(place, allow_pickle=False) as stored:
                x, y = stored["x"], stored.get("y", None)
            x = x if x.dtype == np.uint8 else (x * 255).round().clip(0, 255).astype(np.uint8)
            x = pixels.channels_first(x)
            size = None if x.shape[2:] == (height, width) else height
            x = pixels.fit(x, Dataset(size=size, channels=channels))
        return [(image, "" if y is None else str(y[i]), f"{place.name}:{i}") for i, image in enumerate(x)]
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
    read = []
    for path in files:
        with complaining(f"{path}: cannot be read as a picture"):
            read.append((pixels.read(path, height, channels), path.parent.name, str(path)))
    return read


def _bytes(x: Tensor) -> np.ndarray:
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _draw(rows: Sequence[tuple[str, np.ndarray]], out: Path) -> None:
    """Writes a sheet in which each kind of image has its own row. Each kind is (N, C, H, W) uint8."""
    n = len(rows[0][1])
    columns = min(COLUMNS, n)
    blank = -n % columns
    padded = [np.concatenate([x, np.full((blank, *x.shape[1:]), 255, np.uint8)]) for _, x in rows]
    chunks = [x.reshape(math.ceil(n / columns), columns, *x.shape[1:]) for x in padded]
    sheet = np.stack(chunks, axis=1).reshape(-1, columns, *rows[0][1].shape[1:])
    labels = [label for label, _ in rows] * len(chunks[0])
    Sheet(sheet, labels).draw().save(out, "PNG")
