"""The classification datasets of torchvision, read from its files; those of idx files by a reader of our own."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vae.config import ConfigError, Dataset
from vae.data import cache, idx, pixels
from vae.data.files import complaining, root_of
from vae.data.images import HELD_OUT, ImageData, Labelled, hold_out_every_fifth, image_data

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte, after which a download is given up
ARCHIVES = {".bz2", ".gz", ".mat", ".tar", ".tgz", ".zip"}
KINDS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}  # those with a name of our own

# The arguments with which a class of torchvision gives the training and the held-out images.
# None: it has no split of its own, and every fifth image of a class is held out.
FLAG = ({"train": True}, {"train": False})
TRAIN_TEST, TRAINVAL_TEST, TRAIN_VAL = (
    ({"split": train}, {"split": test}) for train, test in (("train", "test"), ("trainval", "test"), ("train", "val"))
)
SPLITS: dict[str, tuple[dict[str, Any], dict[str, Any]] | None] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "QMNIST", "USPS"), FLAG),
    "EMNIST": ({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
    **dict.fromkeys(("Country211", "DTD", "FER2013", "Flowers102", "Food101", "GTSRB", "PCAM"), TRAIN_TEST),
    **dict.fromkeys(("RenderedSST2", "STL10", "StanfordCars", "SVHN"), TRAIN_TEST),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), TRAINVAL_TEST),
    **dict.fromkeys(("CLEVRClassification", "Imagenette"), TRAIN_VAL),
    **dict.fromkeys(("Caltech101", "Caltech256", "EuroSAT", "SEMEION", "SUN397"), None),
}


def torchvision_dataset(config: Dataset) -> ImageData:
    """A whole dataset of SPLITS, downloaded if its files are not there.

    Images that torchvision holds in memory are taken from there. Others are decoded once and cached in `.vae-cache`
    under the root; torchvision's files are assumed not to change.

    Raises:
        ConfigError: the name is unknown, the download fails or the files cannot be read.
    """
    import torchvision  # here, because the import takes a second

    root, name = root_of(config), KINDS.get(config.kind, str(config.name))
    if name not in SPLITS:
        known = {known.lower(): known for known in SPLITS}
        near = [known[word] for word in difflib.get_close_matches(name.lower(), known, cutoff=0.5)]
        raise ConfigError(
            f"dataset.name={name}: not a classification dataset of torchvision that is known here; "
            + (f"nearest: {', '.join(near)}" if near else f"allowed: {', '.join(SPLITS)}")
        )
    with complaining(
        f"dataset.root={config.root}: cannot read {name} in {root}; delete its files to have them downloaded again"
    ):
        dataset = getattr(torchvision.datasets, name)
        origin = f"torchvision {torchvision.__version__} {name}, {root}"
        if name in idx.DATASETS and (files := idx.find(root, name)):
            splits = [(pixels.fit(x, config), y) for x, y in idx.splits(files)]
            classes, origin = dataset.classes, f"{name}, idx files of {files[0].parent}"
        else:
            opened = _open(config, dataset, root)
            in_memory = isinstance(getattr(opened[0], "data", None), np.ndarray | torch.Tensor)
            splits = [_from_memory(x, config) for x in opened] if in_memory else _from_files(opened, config, root)
            classes = getattr(opened[0], "classes", getattr(opened[0], "categories", ()))
        labels = np.concatenate([y for _, y in splits])
        classes = classes or range(labels.max() + 1)
        for x, y in splits:
            if len(x) != len(y):
                raise ValueError(f"{len(x)} images, but {len(y)} labels")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise ValueError(f"labels from {labels.min()} to {labels.max()}, not from 0 to {len(classes) - 1}")
    if name in ("MNIST", "QMNIST"):  # which call the digits "0 - zero", ...
        classes = range(10)
    train, test = splits if len(splits) == 2 else hold_out_every_fifth(*splits[0])
    split = "its own split" if len(splits) == 2 else HELD_OUT
    source = f"{origin}: {split}{pixels.conversion(config)}"
    return image_data(config.name or config.kind, source, train, test, [str(label) for label in classes])


def _open(config: Dataset, dataset: Any, root: Path) -> list[Any]:
    """The splits of a class of torchvision.datasets, downloaded if its files are not there."""
    parameters = inspect.signature(dataset).parameters
    downloads = "download" in parameters or "kwargs" in parameters

    def splits(folder: Path, **download: bool) -> list[Any]:
        return [dataset(folder, **split, **download) for split in SPLITS[dataset.__name__] or ({},)]

    try:
        return splits(root, **({"download": False} if downloads else {}))
    except (RuntimeError, OSError) as error:  # what torchvision raises for files that are absent or incomplete
        absent = error
    needed = f"the files that torchvision.datasets.{dataset.__name__} asks for into {root}"
    if isinstance(getattr(dataset, "resources", None), list):  # MNIST and its relatives say which
        needed = f"{', '.join(name for name, _ in dataset.resources)} into {root / dataset.__name__ / 'raw'}"
    elif hasattr(dataset, "filename"):  # and so do CIFAR-10 and CIFAR-100
        needed = f"{dataset.filename} into {root}"
    with complaining(
        f"dataset.root={config.root}: there is no complete {dataset.__name__} in {root}, and its download failed; put "
        f" {needed}, or use dataset=mnist_5k or dataset=photos, which need no files"
    ):
        if not downloads:
            raise absent
        with _download_folder(dataset.__name__, root) as folder:
            splits(folder, download=True)
    return splits(root, download=False)


@contextlib.contextmanager
def _download_folder(name: str, root: Path) -> Iterator[Path]:
    """A folder to download and unpack in, whose files are moved to the root if nothing fails.

    It links to the archives under the root, so that one that somebody has put there is not downloaded again. It lies
    in the root itself, is removed in any case, and so is a root that was made for it.
    """
    log.info("downloading %s to %s", name, root)
    made_root = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    output = io.StringIO()  # takes torchvision's progress bars
    try:
        with (
            tempfile.TemporaryDirectory(dir=root, prefix=".download-") as temporary,
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            folder = Path(temporary)
            for archive in [path for path in root.rglob("*") if path.suffix in ARCHIVES and path.is_file()]:
                link = folder / archive.relative_to(root)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(archive.resolve())
            yield folder
            for file in [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]:
                target = root / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    finally:
        socket.setdefaulttimeout(timeout)
        if made_root and not any(root.iterdir()):
            root.rmdir()


def _from_memory(split: Any, config: Dataset) -> Labelled:
    """Images and labels of a split that torchvision holds as an array."""
    x = pixels.fit(pixels.channels_first(np.asarray(split.data)), config)
    y = np.asarray(split.targets if hasattr(split, "targets") else split.labels)
    return x, y.reshape(len(y), -1)[:, 0]  # QMNIST has seven more columns


def _from_files(splits: list[Any], config: Dataset, root: Path) -> list[Labelled]:
    """The same for splits that torchvision reads from files, one by one."""
    import torchvision

    def decode() -> dict[str, np.ndarray]:
        log.info("decoding %d images of %s", sum(map(len, splits)), config.name)
        channels = config.channels or (1 if splits[0][0][0].mode in ("1", "L") else 3)
        arrays = {}
        for i, split in enumerate(splits):
            items = [split[j] for j in range(len(split))]
            images = [pixels.convert(image, config.size, channels) for image, _ in items]  # (C, H, W) each
            sizes = sorted({image.shape[1:] for image in images})
            if len(sizes) > 1:
                raise ConfigError(
                    f"dataset.size=null: the images differ in size, from {sizes[0]} to {sizes[-1]}; "
                    "allowed: the height and width to resize them to, such as 64"
                )
            arrays[f"x{i}"] = np.stack(images)
            arrays[f"y{i}"] = np.array([int(label) for _, label in items])
        return arrays

    key = (pixels.VERSION, torchvision.__version__, config.size, config.channels, [len(split) for split in splits])
    path = root / ".vae-cache" / f"{config.name}-{config.size}x{config.channels}.npz"
    arrays = cache.arrays(path, key, decode)
    return [(arrays[f"x{i}"], arrays[f"y{i}"]) for i in range(len(splits))]
