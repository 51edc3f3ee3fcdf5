"""Arrays of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import tiny_config
from tests.datasets import noise, one_line_error
from vae.config import Dataset
from vae.data import load
from vae.model import resolve
from vae.stack import Stack
from vae.train import train_epoch


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
    arrays = load(save_arrays(tmp_path / "own.npz"))
    assert arrays.name == "own"
    assert np.array_equal(arrays.train_x.numpy(), noise(0, 6, 8, 8, 3).transpose(0, 3, 1, 2))
    assert np.array_equal(arrays.test_x.numpy(), noise(1, 4, 8, 8, 3).transpose(0, 3, 1, 2))
    assert arrays.train_y.tolist() == [0, 1, 2, 0, 1, 2]
    assert arrays.classes == ("0", "1", "2")
    moved = load(save_arrays(tmp_path / "moved.npz"))
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
    images = load(save_arrays(tmp_path / "own.npz", x_train=x, x_test=x[:4]))
    assert images.image_shape == expected
    channels_last = images.train_x.numpy().transpose(0, 2, 3, 1)
    assert np.array_equal(channels_last.reshape(x.shape) if shape[0] != 3 else images.train_x.numpy(), x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npz_floats_are_the_bytes_that_they_stand_for(tmp_path: Path, dtype: type):
    changes = {f"x_{split}": (noise(i, n, 8, 8, 3) / 255).astype(dtype) for i, (split, n) in enumerate(
        [("train", 6), ("test", 4)])}  # fmt: skip
    floats = load(save_arrays(tmp_path / "floats.npz", **changes))
    assert floats.content_hash == load(save_arrays(tmp_path / "bytes.npz")).content_hash


def test_npz_labels_can_be_texts_columns_and_any_numbers(tmp_path: Path):
    texts = np.array(["cat", "ant", "bee"])
    found = load(save_arrays(tmp_path / "a.npz", y_train=texts[np.arange(6) % 3], y_test=texts[[0, 0, 1, 2]]))
    assert found.classes == ("ant", "bee", "cat")
    assert found.test_y.tolist() == [2, 2, 0, 1]
    found = load(save_arrays(tmp_path / "b.npz", y_train=np.array([[7], [3]] * 3), y_test=np.array([[7]] * 4)))
    assert found.classes == ("3", "7")
    assert found.train_y.tolist() == [1, 0] * 3
    assert load(save_arrays(tmp_path / "c.npz", y_train=None, y_test=None)).classes == ("all",)


def test_npz_without_held_out_arrays_holds_out_every_fifth(tmp_path: Path):
    x, y = noise(0, 12, 8, 8, 3), np.arange(12) % 2
    found = load(save_arrays(tmp_path / "own.npz", x_train=x, y_train=y, x_test=None, y_test=None))
    assert np.array_equal(found.test_x.numpy(), x[[8, 9]].transpose(0, 3, 1, 2))
    assert found.train_y.tolist() == [0, 1] * 5
    assert found.source == f"{tmp_path}/own.npz: every fifth image of a class is held out"
    unlabelled = load(save_arrays(tmp_path / "x.npz", x_train=x, y_train=None, x_test=None, y_test=None))
    assert np.array_equal(unlabelled.test_x.numpy(), x[[4, 9]].transpose(0, 3, 1, 2))


def test_npz_arrays_are_resized_and_made_grey(tmp_path: Path):
    config = save_arrays(tmp_path / "own.npz")
    config.size, config.channels = 16, 1
    images = load(config)
    assert images.image_shape == (1, 16, 16)
    picture = Image.fromarray(noise(0, 6, 8, 8, 3)[2]).convert("L").resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(images.train_x[2, 0].numpy(), np.asarray(picture))


NAN = np.full((6, 8, 8), np.nan, dtype=np.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_test": None}, "has no x_test, it holds x_train, y_train, y_test; allowed: an .npz file with x_train and"),
        ({"x_test": None, "y_test": None}, "x_train cannot be split; allowed: x_test, or five images of a class (no "),
        ({"y_test": None}, "has no y_test, it holds x_train, y_train, x_test; allowed: "),
        ({"x_train": noise(0, 6, 8, 8).astype(np.int64)}, "x_train is of int64; allowed: uint8, or floats in [0, 1]"),
        ({"x_train": NAN}, "x_train is of float32 from nan to nan; allowed: floats in [0, 1], or uint8"),
        ({"x_train": noise(0, 6, 8, 8) * 1.0}, "x_train is of float64 from 0 to 255; allowed: floats in [0, 1]"),
        ({"y_train": np.arange(5)}, "y_train is of shape (5,), but there are 6 images; allowed: (6,)"),
        ({"y_train": np.eye(6)}, "y_train is of float64; allowed: whole numbers or texts"),
        ({"y_train": np.eye(6, dtype=int)}, "y_train is of shape (6, 6), but there are 6 images; allowed: (6,)"),
        ({"y_test": np.array([0, 1, 2, 9])}, "y_test holds 9, which y_train does not; allowed: its labels"),
        ({"x_train": noise(0, 6, 3, 8, 3)}, "shape (6, 3, 8, 3) does not tell which axis holds the channels"),
        ({"x_train": noise(0, 6, 64)}, "shape (6, 64) is not one of images; allowed: (N, H, W), (N, H, W, 1), "),
        ({"x_train": noise(0, 6, 8, 8, 4)}, "shape (6, 8, 8, 4) is not one of images"),
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
    """With the encoder of conf/model/conv.yaml."""
    photos = load(Dataset(kind="photos")).train_x[::80].numpy()  # (64, 3, 32, 32)
    x = photos.repeat(2, axis=2).repeat(2, axis=3)
    labels = np.arange(64) % 2
    np.savez(tmp_path / "patches.npz", x_train=x[:48], y_train=labels[:48], x_test=x[48:], y_test=labels[48:])
    patches = load(Dataset(kind="npz", root=str(tmp_path / "patches.npz")))
    assert patches.image_shape == (3, 64, 64)
    config = tiny_config(model__kind="conv", model__hidden=None, model__channels=[32, 64, 128])
    arch = resolve(config, patches.image_shape, patches.n_classes, [])
    stack = Stack([config], [arch], len(patches.train_x), torch.device("cpu"))
    train_epoch(stack, patches.train_x.flatten(1), patches.train_y, lambda _: False)
    assert all(parameter.isfinite().all() for parameter in stack.parameters.values())
