"""Splits and content hashes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.datasets import make, noise
from vae.config import ConfigError, Dataset
from vae.data import ImageData, load
from vae.data.images import split_validation


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


# --- Validation images


def labelled(counts: list[int], n_test: int = 3) -> ImageData:
    """Noise with so many training images of each class, shuffled."""
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return make(noise(0, len(y), 1, 4, 4), y.tolist(), noise(1, n_test, 1, 4, 4), [0] * n_test, len(counts))


@pytest.mark.parametrize(("share", "expected"), [(0.1, [2, 4, 1]), (0.5, [10, 20, 2]), (0.25, [5, 10, 1])])
def test_every_class_gives_its_share_of_training_images(share: float, expected: list[int]):
    whole = labelled([20, 40, 4])
    split = split_validation(whole, share)
    assert torch.bincount(split.val_y).tolist() == expected
    assert torch.equal(split.test_x, whole.test_x)

    def pairs(*parts: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[int, bytes]]:
        return sorted(
            (int(label), image.numpy().tobytes()) for x, y in parts for image, label in zip(x, y, strict=True)
        )

    assert pairs((split.train_x, split.train_y), (split.val_x, split.val_y)) == pairs((whole.train_x, whole.train_y))


def test_the_hash_and_the_source_tell_of_the_validation_images():
    whole = labelled([20, 20])
    splits = [split_validation(whole, share) for share in (0.1, 0.1, 0.2)]
    assert splits[0].content_hash == splits[1].content_hash
    assert len({whole.content_hash, splits[0].content_hash, splits[2].content_hash}) == 3
    assert splits[2].source == "by hand; 20 % of the training images of each class are validation images"
    assert torch.equal(splits[0].val_x, splits[1].val_x)


def test_the_choice_of_validation_images_never_changes():
    whole = labelled([40, 40])
    split = split_validation(whole, 0.1)
    places = [i for i, x in enumerate(whole.train_x) if any(torch.equal(x, chosen) for chosen in split.val_x)]
    assert places == [4, 6, 8, 37, 40, 44, 51, 68]


def test_a_class_that_would_be_left_without_training_images():
    with pytest.raises(ConfigError, match=r"^dataset\.validation=0\.1: class 1 has only 1 training") as caught:
        split_validation(labelled([20, 1]), 0.1)
    assert "\n" not in str(caught.value)
    assert torch.bincount(split_validation(labelled([20, 0, 2]), 0.1).val_y, minlength=3).tolist() == [2, 0, 1]


def test_without_validation_there_are_no_images_of_the_right_shape():
    mnist = load(Dataset())
    assert mnist.val_x.shape == (0, 1, 28, 28)
    assert mnist.val_y.shape == (0,)
    assert (mnist.val_x.dtype, mnist.val_y.dtype) == (torch.uint8, torch.int64)


@pytest.mark.parametrize(
    ("kind", "content_hash"),
    [
        ("mnist_5k", "c941c139c6071536a832622f6d57dd92966f30eb7dc022be5d5b5460284b2886"),
        ("photos", "b365624ed5a5a628d51a3ee5cfdfc32f77d893a4a0b6a58aaea880f47980119c"),
    ],
)
def test_the_hash_of_an_embedded_dataset_never_changes(kind: str, content_hash: str):
    """It is part of the names of runs."""
    assert load(Dataset(kind=kind)).content_hash == content_hash


def test_load_splits_off_validation_images():
    mnist = load(Dataset(validation=0.1))
    assert (len(mnist.train_x), len(mnist.val_x), len(mnist.test_x)) == (3600, 400, 1000)
    assert torch.bincount(mnist.val_y).tolist() == [40] * 10
    whole = load(Dataset())
    assert torch.equal(mnist.test_x, whole.test_x)
    assert mnist.content_hash != whole.content_hash
