"""What is known of a dataset before any training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vae.config import ConfigError
from vae.data import cache
from vae.data.images import ImageData, Labelled

VERSION = 3  # raise when the same images give other facts than before
MAX_COVARIANCE = 16384  # rows: the matrix takes 2 GiB, its eigenvectors three times as much, and many minutes
CHUNK = 1024  # rows or columns of the images that are in memory as float64 at a time
IN_SPAN = 1e-12  # of the largest eigenvalue: below it an eigenvector from a Gram matrix is mostly rounding error


@dataclass(frozen=True, eq=False)
class Facts:
    """Errors of the simplest guesses and spectra. Pixels are in [0, 1]; errors are summed squares per image.

    The eigenvalues sum to `sse_mean["train"]`, those within classes to `sse_class_means["train"]`. The test variances
    are in the eigenvalues' order and sum to `sse_mean["test"]` and `sse_class_means["test"]`.
    """

    sse_zero: dict[str, float]  # {"train": ..., "test": ...} and "val" if there are any: error of a black image
    sse_mean: dict[str, float]  # of the mean training image
    sse_class_means: dict[str, float]  # of the mean training image of the image's own class
    eigenvalues: np.ndarray  # (D,) float64, descending: of the 1/N covariance of the training images
    eigenvalues_within: np.ndarray  # (D,) float64, descending: of the same about the class means, pooled over classes
    test_variances: np.ndarray  # (D,) float64: mean square of the held-out images, less the mean training image, along
    test_variances_within: np.ndarray  # each eigenvector; the same about the class means


def facts(data: ImageData, cache_root: Path | None = None) -> Facts:
    """Computes the facts in float64, or takes them from `<cache_root>/facts-<content_hash>.npz`.

    The same images give the same facts, to the last bit, whatever the number of threads. A class without training
    images is given the mean of all training images.

    Raises:
        ConfigError: the images are too large and too many for their covariance (above 16384 values and images).
    """
    if cache_root is None:
        return _compute(data)
    path = cache_root / f"facts-{data.content_hash}.npz"
    arrays = cache.arrays(path, (VERSION, data.content_hash), lambda: _as_arrays(_compute(data)))
    known: dict[str, Any] = {}
    for key, value in arrays.items():
        name, _, split = key.partition(".")
        if split:
            known.setdefault(name, {})[split] = value.item()
        else:
            known[name] = value
    return Facts(**known)


def _as_arrays(known: Facts) -> dict[str, np.ndarray]:
    """The facts by name; an error of a split as `sse_mean.train`."""
    found = {}
    for name, value in asdict(known).items():
        if isinstance(value, dict):
            found |= {f"{name}.{split}": np.array(error) for split, error in value.items()}
        else:
            found[name] = value
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrix products and decompositions by one thread of torch: the last digits depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _compute(data: ImageData) -> Facts:
    n, d = len(data.train_x), data.input_dim
    if min(n, d) > MAX_COVARIANCE:
        raise ConfigError(
            f"dataset.size={data.image_shape[1]}: {d} values per image and {n} training images make a covariance of "
            f"{min(n, d) ** 2 * 8 / 2**30:.0f} GiB; allowed: at most {MAX_COVARIANCE} of one of the two"
        )
    tensors = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    if len(data.val_x):
        tensors["val"] = (data.val_x, data.val_y)
    splits = {split: (x.flatten(1).numpy(), y.numpy()) for split, (x, y) in tensors.items()}  # (N, D) uint8, (N,)
    train_x, train_y = splits["train"]

    # What is guessed for the images of each class: (n_classes, D), in units of 1/255
    zero = np.zeros((data.n_classes, d))
    mean = np.tile(train_x.mean(axis=0, dtype=np.float64), (data.n_classes, 1))
    class_means = mean.copy()
    for c in np.unique(train_y):
        class_means[c] = train_x[train_y == c].mean(axis=0, dtype=np.float64)

    eigenvalues, test_variances = _spectra(splits["train"], splits["test"], mean)
    eigenvalues_within, test_variances_within = _spectra(splits["train"], splits["test"], class_means)
    return Facts(
        sse_zero={split: _sse(labelled, zero) for split, labelled in splits.items()},
        sse_mean={split: _sse(labelled, mean) for split, labelled in splits.items()},
        sse_class_means={split: _sse(labelled, class_means) for split, labelled in splits.items()},
        eigenvalues=eigenvalues,
        eigenvalues_within=eigenvalues_within,
        test_variances=test_variances,
        test_variances_within=test_variances_within,
    )


def _residuals(images: Labelled, guess: np.ndarray) -> Iterator[np.ndarray]:
    """Images (N, D) less the guess for their class, (CHUNK, D) float64 at a time; guess: (n_classes, D)."""
    x, y = images
    for i in range(0, len(x), CHUNK):
        yield x[i : i + CHUNK] - guess[y[i : i + CHUNK]]


def _sse(images: Labelled, guess: np.ndarray) -> float:
    """Mean over images of the summed squared residuals, for pixels in [0, 1]."""
    return float(sum(np.square(rest).sum() for rest in _residuals(images, guess))) / len(images[0]) / 255**2


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b by torch, whose number of threads can be set."""
    return (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()


@_one_thread()
def _spectra(train: Labelled, test: Labelled, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the 1/N covariance of the training residuals, and the test residuals' variances along its vectors.

    With R the training residuals (N, D), R'R and RR' have the same eigenvalues except for zeros, and R' turns an
    eigenvector of RR' into one of R'R. The smaller of the two matrices is decomposed.

    Returns:
        (D,) and (D,), in descending order of the eigenvalues, none negative.
    """
    x, y = train
    n, d = x.shape
    columns = [slice(i, i + CHUNK) for i in range(0, d, CHUNK)]
    if d <= n:
        product = sum(_product(rest.T, rest) for rest in _residuals(train, guess))  # (D, D)
    else:
        product = sum(_product(rest, rest.T) for rest in (x[:, piece] - guess[y, piece] for piece in columns))  # (N, N)
    ascending, columnwise = (result.numpy() for result in torch.linalg.eigh(torch.from_numpy(product)))
    values = np.zeros(d)
    values[: min(n, d)] = ascending[::-1] / n / 255**2
    values = values.clip(min=0)  # rounding makes some of the zeros -1e-16

    vectors = columnwise[:, ::-1].copy()  # one per column
    if d > n:
        vectors = vectors[:, values[:n] > IN_SPAN * values[0]]  # (N, r)
        vectors = np.concatenate([_product((x[:, piece] - guess[y, piece]).T, vectors) for piece in columns])  # (D, r)
        vectors /= np.linalg.norm(vectors, axis=0)
    r = vectors.shape[1]
    variances = np.zeros(d)
    variances[:r] = sum(np.square(_product(rest, vectors)).sum(axis=0) for rest in _residuals(test, guess))
    variances /= len(test[0]) * 255**2
    if d > n:  # what lies outside the span of the training images is divided evenly
        variances[r:] = max(0.0, _sse(test, guess) - variances.sum()) / (d - r)
    return values, variances
