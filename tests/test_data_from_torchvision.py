"""Datasets of torchvision, from small files in their own formats. Needs no network."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import shutil
import socket
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets import idx, mnist_files, noise, one_line_error, save, write_all
from vae.config import Dataset
from vae.data import from_torchvision, load


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """No network; the list takes the timeout of each attempt to use it."""
    timeouts: list[float | None] = []

    def refuse(*_: Any, **__: Any) -> None:
        timeouts.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("Temporary failure\nin name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return timeouts


@pytest.mark.parametrize(("kind", "subfolder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_is_read_from_its_files(tmp_path: Path, offline: list, kind: str, subfolder: str):
    write_all(tmp_path / subfolder / "raw", mnist_files())
    mnist = load(Dataset(kind=kind, root=str(tmp_path)))
    assert np.array_equal(mnist.train_x.numpy(), noise(0, 20, 28, 28)[:, None])
    assert np.array_equal(mnist.test_x.numpy(), noise(1, 10, 28, 28)[:, None])
    assert mnist.train_y.tolist() == [*range(10), *range(10)]
    assert mnist.classes[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[kind]
    assert offline == []


@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "."])
def test_idx_files_are_read_whatever_their_checksum(tmp_path: Path, offline: list, folder: str):
    """As in Debian's package, which compressed them anew."""
    files = {f"{name}.gz": gzip.compress(content, mtime=1) for name, content in mnist_files().items()}
    write_all(tmp_path / folder, files)
    fashion = load(Dataset(kind="fashion_mnist", root=str(tmp_path)))
    assert np.array_equal(fashion.train_x.numpy(), noise(0, 20, 28, 28)[:, None])
    assert np.array_equal(fashion.test_x.numpy(), noise(1, 10, 28, 28)[:, None])
    assert fashion.test_y.tolist() == list(range(10))
    assert fashion.classes[9] == "Ankle boot"
    assert fashion.source == f"FashionMNIST, idx files of {(tmp_path / folder).resolve()}: its own split"
    assert offline == []


def test_idx_files_of_kaggle_and_of_torchvision_are_the_same_data(tmp_path: Path):
    write_all(tmp_path / "a/KMNIST/raw", mnist_files())
    write_all(tmp_path / "b", {name.replace("-idx", ".idx"): content for name, content in mnist_files().items()})
    a, b = (load(Dataset(kind="torchvision", name="KMNIST", root=str(tmp_path / root))) for root in "ab")
    assert a.content_hash == b.content_hash


@pytest.fixture
def cifar10_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 of 5 x 4 training and 10 held-out images, without torchvision's checksums."""
    from torchvision.datasets import CIFAR10

    def batch(seed: int, n: int) -> bytes:
        return pickle.dumps({"data": noise(seed, n, 3072), "labels": list(range(n))})

    files = {f"data_batch_{i}": batch(i, 4) for i in range(1, 6)} | {"test_batch": batch(6, 10)}
    meta = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    write_all(tmp_path / "cifar-10-batches-py", files | {"batches.meta": meta})
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", None] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    return tmp_path


def test_cifar10_is_read_from_its_files(cifar10_root: Path):
    cifar = load(Dataset(kind="cifar10", root=str(cifar10_root)))
    expected = np.concatenate([noise(i, 4, 3, 32, 32) for i in range(1, 6)])
    assert np.array_equal(cifar.train_x.numpy(), expected)
    assert np.array_equal(cifar.test_x.numpy(), noise(6, 10, 3, 32, 32))
    assert cifar.train_y.tolist() == [0, 1, 2, 3] * 5
    assert cifar.classes[9] == "class 9"


def test_cifar10_that_is_damaged(cifar10_root: Path):
    (cifar10_root / "cifar-10-batches-py/test_batch").write_bytes(b"\x80")
    assert "cannot read CIFAR10" in one_line_error(Dataset(kind="cifar10", root=str(cifar10_root)))


@pytest.mark.parametrize("damaged", list(mnist_files()))
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_mnist_that_is_damaged(tmp_path: Path, offline: list, damaged: str, content: bytes | None):
    files = mnist_files()
    files[damaged] = files[damaged][:-5] if content is None else content
    write_all(tmp_path / "MNIST/raw", files)
    message = one_line_error(Dataset(kind="mnist", root=str(tmp_path)))
    assert message.startswith(f"dataset.root={tmp_path}: ")
    assert f"MNIST in {tmp_path}" in message


def test_mnist_whose_files_do_not_belong_together(tmp_path: Path):
    write_all(tmp_path / "MNIST/raw", mnist_files() | {"train-labels-idx1-ubyte": idx(np.zeros(7, dtype=np.uint8))})
    assert "20 images, but 7 labels" in one_line_error(Dataset(kind="mnist", root=str(tmp_path)))


def test_mnist_with_impossible_labels(tmp_path: Path):
    labels = np.full(20, 10, dtype=np.uint8)
    write_all(tmp_path / "MNIST/raw", mnist_files() | {"train-labels-idx1-ubyte": idx(labels)})
    assert "labels from 0 to 10" in one_line_error(Dataset(kind="mnist", root=str(tmp_path)))


@pytest.mark.parametrize(
    ("kind", "archive", "instead"),
    [
        ("mnist", "train-images-idx3-ubyte.gz", "mnist_5k"),
        ("fashion_mnist", "t10k-labels-idx1-ubyte.gz", "mnist_5k"),
        ("cifar10", "cifar-10-python.tar.gz", "photos"),
    ],
)
@pytest.mark.parametrize("root_exists", [True, False])
def test_without_files_and_network(
    tmp_path: Path,
    offline: list[float | None],
    capfd: pytest.CaptureFixture[str],
    kind: str,
    archive: str,
    instead: str,
    root_exists: bool,
):
    root = tmp_path / "data"
    if root_exists:
        root.mkdir()
    message = one_line_error(Dataset(kind=kind, root=str(root)))
    assert message.startswith(f"dataset.root={root}: ")
    assert archive in message
    assert f"dataset={instead}" in message
    assert "Temporary failure in name resolution" in message
    assert set(offline) == {from_torchvision.DOWNLOAD_TIMEOUT}
    assert socket.getdefaulttimeout() is None
    assert root.exists() == root_exists
    assert not root_exists or list(root.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_root_that_is_a_file_takes_no_download(tmp_path: Path, offline: list):
    root = tmp_path / "file"
    root.write_text("")
    assert "File exists" in one_line_error(Dataset(kind="mnist", root=str(root)))


def test_a_download_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import MNIST

    def breaks_off(self: MNIST) -> None:
        write_all(Path(self.raw_folder), {"train-images-idx3-ubyte": b"half of it"})
        raise TimeoutError("timed out")

    monkeypatch.setattr(MNIST, "download", breaks_off)
    assert "(timed out)" in one_line_error(Dataset(kind="mnist", root=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_download_completes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    from torchvision.datasets import MNIST

    def download(self: MNIST) -> None:
        print("100 %")
        write_all(Path(self.raw_folder), mnist_files())

    monkeypatch.setattr(MNIST, "download", download)
    raw = tmp_path / "MNIST/raw"
    write_all(raw, {"t10k-labels-idx1-ubyte": b"of an earlier attempt"})
    assert len(load(Dataset(kind="mnist", root=str(tmp_path))).train_x) == 20
    assert sorted(path.name for path in raw.iterdir()) == sorted(mnist_files())
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]
    assert capfd.readouterr().out == ""


def test_an_archive_put_there_by_hand_is_unpacked_without_network(
    cifar10_root: Path, offline: list, monkeypatch: pytest.MonkeyPatch
):
    from torchvision.datasets import CIFAR10

    archive, folder = cifar10_root / CIFAR10.filename, cifar10_root / CIFAR10.base_folder
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, CIFAR10.base_folder)
    shutil.rmtree(folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(load(Dataset(kind="cifar10", root=str(cifar10_root))).train_x) == 20
    assert offline == []
    assert sorted(path.name for path in cifar10_root.iterdir()) == sorted([archive.name, folder.name])


# --- Any dataset of torchvision by its name


def named(name: str, root: Path, **settings: Any) -> Dataset:
    return Dataset(kind="torchvision", name=name, root=str(root), **settings)


def test_kmnist_is_read_from_its_files_by_name(tmp_path: Path, offline: list):
    write_all(tmp_path / "KMNIST/raw", mnist_files())
    kmnist = load(named("KMNIST", tmp_path))
    assert np.array_equal(kmnist.train_x.numpy(), noise(0, 20, 28, 28)[:, None])
    assert np.array_equal(kmnist.test_x.numpy(), noise(1, 10, 28, 28)[:, None])
    assert kmnist.test_y.tolist() == list(range(10))
    assert kmnist.classes[:2] == ("o", "ki")
    assert kmnist.name == "KMNIST"
    assert kmnist.source == f"KMNIST, idx files of {tmp_path}/KMNIST/raw: its own split"
    assert offline == []


def test_mnist_by_name_is_the_same_data_as_by_kind(tmp_path: Path):
    write_all(tmp_path / "MNIST/raw", mnist_files())
    by_kind = load(Dataset(kind="mnist", root=str(tmp_path)))
    assert load(named("MNIST", tmp_path)).content_hash == by_kind.content_hash


def test_images_in_memory_are_resized_and_coloured(tmp_path: Path):
    write_all(tmp_path / "KMNIST/raw", mnist_files())
    images = load(named("KMNIST", tmp_path, size=14, channels=3))
    assert images.image_shape == (3, 14, 14)
    halved = Image.fromarray(noise(0, 20, 28, 28)[7]).resize((14, 14), Image.Resampling.BILINEAR)
    assert np.array_equal(images.train_x[7].numpy(), np.stack([np.asarray(halved)] * 3))
    assert images.source.endswith(", resized to 14x14, colour")


def test_svhn_is_read_from_its_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    pixels = noise(0, 32, 32, 3, 12)  # H, W, C, N as in its files
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.arange(1, 13)[:, None] % 10 + 1})
        md5 = hashlib.md5((tmp_path / f"{split}_32x32.mat").read_bytes()).hexdigest()
        monkeypatch.setitem(SVHN.split_list, split, ["nowhere", f"{split}_32x32.mat", md5])
    svhn = load(named("SVHN", tmp_path))
    assert np.array_equal(svhn.train_x.numpy(), pixels.transpose(3, 2, 0, 1))
    assert svhn.train_y.tolist()[:3] == [2, 3, 4]
    assert svhn.train_y[8] == 0  # the file's label 10 is the digit 0
    assert svhn.classes == tuple("0123456789")


@pytest.fixture
def eurosat_root(tmp_path: Path) -> Path:
    """A small EuroSAT in its true layout: 64x64 colour pictures in a folder a class, without a split."""
    for seed, (label, i) in enumerate((label, i) for label in ("Forest", "River") for i in range(5)):
        save(tmp_path / f"eurosat/2750/{label}/{label}_{i}.jpg", noise(seed, 64, 64, 3), quality=95)
    return tmp_path


def test_a_dataset_without_a_split_has_every_fifth_image_held_out(eurosat_root: Path, offline: list):
    eurosat = load(named("EuroSAT", eurosat_root))
    assert eurosat.classes == ("Forest", "River")
    assert eurosat.train_x.shape == (8, 3, 64, 64)
    assert eurosat.train_y.tolist() == [0] * 4 + [1] * 4
    assert eurosat.test_y.tolist() == [0, 1]
    with Image.open(eurosat_root / "eurosat/2750/River/River_4.jpg") as image:
        assert np.array_equal(eurosat.test_x[1].numpy().transpose(1, 2, 0), np.asarray(image))
    assert eurosat.source.endswith("every fifth image of a class is held out")
    assert offline == []


def test_images_from_files_are_decoded_once_for_each_size(eurosat_root: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import EuroSAT

    fresh = load(named("EuroSAT", eurosat_root, size=32))
    full = load(named("EuroSAT", eurosat_root))
    monkeypatch.setattr(EuroSAT, "__getitem__", lambda self, i: pytest.fail("decoded again"))
    cached = load(named("EuroSAT", eurosat_root, size=32))
    assert cached.content_hash == fresh.content_hash != full.content_hash
    assert torch.equal(cached.test_x, fresh.test_x)


def test_pictures_of_several_sizes_want_a_size(tmp_path: Path, offline: list):
    root = tmp_path / "food-101"
    for split in ("train", "test"):
        names = [f"{food}/{split}{i}" for food in ("pie", "soup") for i in range(2)]
        (root / "meta").mkdir(parents=True, exist_ok=True)
        (root / f"meta/{split}.json").write_text(json.dumps({f: [n for n in names if f in n] for f in ("pie", "soup")}))
        for i, name in enumerate(names):
            save(root / f"images/{name}.jpg", noise(i, 40 + i, 48, 3))
    message = one_line_error(named("Food101", tmp_path))
    assert message.startswith("dataset.size=null: the images differ in size, from (40, 48) to (43, 48); allowed: ")
    food = load(named("Food101", tmp_path, size=16))
    assert food.train_x.shape == (4, 3, 16, 16)
    assert food.train_y.tolist() == [0, 0, 1, 1]
    assert offline == []


@pytest.mark.parametrize(
    ("name", "nearest"), [("KMNST", "KMNIST"), ("cifar100", "CIFAR100"), ("SVNH", "SVHN"), ("eurosat", "EuroSAT")]
)
def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path, name: str, nearest: str):
    assert f"nearest: {nearest}" in one_line_error(named(name, tmp_path))


def test_a_name_like_no_other_is_answered_with_all(tmp_path: Path):
    message = one_line_error(named("xyzzy", tmp_path))
    assert all(known in message for known in from_torchvision.SPLITS)


@pytest.mark.parametrize("name", ["KMNIST", "SVHN", "EuroSAT", "Food101", "USPS", "FER2013"])
def test_by_name_without_files_and_network(tmp_path: Path, offline: list, name: str):
    message = one_line_error(named(name, tmp_path / "data"))
    assert message.startswith(f"dataset.root={tmp_path / 'data'}: there is no complete {name} in ")
    assert not (tmp_path / "data").exists()


def test_by_name_archives_put_there_by_hand_are_unpacked_without_network(
    tmp_path: Path, offline: list, monkeypatch: pytest.MonkeyPatch
):
    from torchvision.datasets import KMNIST

    archives = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files().items()}
    monkeypatch.setattr(
        KMNIST, "resources", [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    )
    write_all(tmp_path / "KMNIST/raw", archives)
    assert len(load(named("KMNIST", tmp_path)).train_x) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["KMNIST"]
    assert offline == []


def test_a_download_by_name_goes_to_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import KMNIST

    monkeypatch.setattr(KMNIST, "download", lambda self: write_all(Path(self.raw_folder), mnist_files()))
    assert len(load(named("KMNIST", tmp_path)).train_x) == 20
    assert sorted(path.name for path in (tmp_path / "KMNIST/raw").iterdir()) == sorted(mnist_files())
    assert [path.name for path in tmp_path.iterdir()] == ["KMNIST"]


def test_damaged_files_by_name(tmp_path: Path, offline: list):
    write_all(tmp_path / "KMNIST/raw", mnist_files() | {"train-images-idx3-ubyte": b"garbage"})
    assert "cannot read KMNIST" in one_line_error(named("KMNIST", tmp_path))
    assert offline == []


def test_every_known_name_is_a_class_of_torchvision_with_the_arguments_of_its_split():
    import inspect

    import torchvision

    for name, splits in from_torchvision.SPLITS.items():
        parameters = inspect.signature(getattr(torchvision.datasets, name)).parameters
        for split in splits or ():
            assert set(split) <= set(parameters) or "kwargs" in parameters
