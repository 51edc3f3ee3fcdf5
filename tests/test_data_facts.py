"""Facts, against slow calculations."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets import folder_config, make, noise
from vae import theory
from vae.config import ConfigError, Dataset
from vae.data import Facts, ImageData, dataset_facts, facts, load
from vae.data.images import split_validation

ROOT = Path(__file__).parent.parent


def slow_facts(images: ImageData) -> dict[str, Any]:
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
    known, slow = facts(images), slow_facts(images)
    for name in ("sse_zero", "sse_mean", "sse_class_means"):
        assert getattr(known, name) == pytest.approx(slow[name], rel=1e-12)
    for name in ("eigenvalues", "eigenvalues_within"):
        values = getattr(known, name)
        np.testing.assert_allclose(values, slow[name], rtol=1e-9, atol=1e-12)
        assert values.dtype == np.float64
        assert values.min() >= 0
        assert (np.diff(values) <= 0).all()
    assert known.eigenvalues.sum() == pytest.approx(known.sse_mean["train"], rel=1e-12)
    assert known.eigenvalues_within.sum() == pytest.approx(known.sse_class_means["train"], rel=1e-12)


@pytest.mark.parametrize(("n", "n_test"), [(40, 7), (3000, 1100), (12, 5)], ids=["full rank", "chunks", "fewer"])
def test_held_out_variances_are_those_along_the_principal_components(n: int, n_test: int):
    shape = (1, 4, 5)
    scale = np.linspace(1, 0.05, 20).reshape(shape)  # eigenvalues far enough apart that each has its own direction
    x, test_x = ((noise(i, count, *shape) * scale).astype(np.uint8) for i, count in enumerate((n, n_test)))
    y, test_y = np.arange(n) % 3, np.arange(n_test) % 3
    known = facts(make(x, y.tolist(), test_x, test_y.tolist(), 3))

    flat, flat_test = x.reshape(n, -1) / 255, test_x.reshape(n_test, -1) / 255
    class_means = np.array([flat[y == c].mean(axis=0) for c in range(3)])
    for guess, guess_test, variances, sse in (
        (flat.mean(axis=0), flat.mean(axis=0), known.test_variances, known.sse_mean["test"]),
        (class_means[y], class_means[test_y], known.test_variances_within, known.sse_class_means["test"]),
    ):
        singular, directions = np.linalg.svd(flat - guess, full_matrices=False)[1:]
        spanned = singular > 1e-9
        expected = np.square((flat_test - guess_test) @ directions[spanned].T).mean(axis=0)
        np.testing.assert_allclose(variances[: len(expected)], expected, rtol=1e-6)
        assert variances.shape == (20,)
        assert variances.min() >= 0
        assert variances.sum() == pytest.approx(sse, rel=1e-12)


def test_facts_of_validation_images(small: ImageData):
    split = split_validation(small, 0.4)  # one of three of each class
    known, rest = facts(split), facts(dataclasses.replace(split, val_x=small.val_x))
    assert set(known.sse_mean) == {"train", "val", "test"}
    for name in ("sse_zero", "sse_mean", "sse_class_means"):
        errors = getattr(known, name)
        assert {split: errors[split] for split in ("train", "test")} == getattr(rest, name)
    assert np.array_equal(known.eigenvalues, rest.eigenvalues)
    val, mean = split.val_x.flatten(1).numpy() / 255, split.train_x.flatten(1).numpy().mean(axis=0) / 255
    assert known.sse_mean["val"] == pytest.approx(np.square(val - mean).sum(axis=1).mean(), rel=1e-12)


def test_facts_of_images_that_are_all_alike():
    images = make(np.full((3, 1, 2, 2), 51, dtype=np.uint8), [0, 0, 1], np.zeros((1, 1, 2, 2), dtype=np.uint8), [0], 2)
    known = facts(images)
    assert known.sse_zero == pytest.approx({"train": 4 * 0.2**2, "test": 0})
    assert known.sse_mean == pytest.approx({"train": 0, "test": 4 * 0.2**2})
    assert known.eigenvalues.tolist() == [0, 0, 0, 0]
    assert known.test_variances.sum() == pytest.approx(known.sse_mean["test"])


def test_facts_of_mnist_5k_are_near_those_of_mnist():
    known = facts(load(Dataset()))
    assert known.sse_zero["train"] == pytest.approx(87.8, abs=1)
    assert known.sse_mean["train"] == pytest.approx(52.7, abs=0.5)
    assert known.sse_class_means["train"] == pytest.approx(41.8, abs=0.5)
    assert known.eigenvalues[0] == pytest.approx(5.1, abs=0.1)
    assert known.eigenvalues_within[0] == pytest.approx(3.1, abs=0.1)
    assert known.eigenvalues.sum() == pytest.approx(known.sse_mean["train"], rel=1e-12)
    assert known.eigenvalues_within.sum() == pytest.approx(known.sse_class_means["train"], rel=1e-12)
    # The linear VAE with labels at x_var 0.01: better on the images that it is fitted to than on held-out ones
    assert theory.optimum(known.eigenvalues_within, 0.01, 100).sse == pytest.approx(5.275, abs=5e-4)
    held_out = theory.held_out(known.eigenvalues_within, known.test_variances_within, 0.01, 100)
    assert held_out.sse == pytest.approx(5.618, abs=5e-4)


@pytest.fixture
def small() -> ImageData:
    return make(noise(0, 9, 1, 3, 3), [0, 1, 2] * 3, noise(1, 3, 1, 3, 3), [0, 1, 2], 3)


def same(a: Facts, b: Facts) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_facts_are_computed_once(small: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "not/there/yet"
    split = split_validation(small, 0.4)
    fresh = facts(split, root)
    assert [path.name for path in root.iterdir()] == [f"facts-{split.content_hash}.npz"]
    monkeypatch.setattr(dataset_facts, "_compute", lambda _: pytest.fail("computed again"))
    assert same(facts(split, root), fresh)
    assert list(fresh.sse_mean) == ["train", "test", "val"]


def test_facts_of_other_contents_are_computed_again(small: ImageData, tmp_path: Path):
    facts(small, tmp_path)
    other = make(noise(5, 9, 1, 3, 3), [0, 1, 2] * 3, noise(1, 3, 1, 3, 3), [0, 1, 2], 3)
    assert same(facts(other, tmp_path), facts(other))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("share", [None, 0.0, 0.1, 0.5, 0.9, 0.999])
def test_damaged_facts_are_named_and_computed_again(
    small: ImageData, tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float | None
):
    fresh = facts(small, tmp_path)
    path = tmp_path / f"facts-{small.content_hash}.npz"
    sound = bytearray(path.read_bytes())
    if share is None:
        path.write_bytes(b"")
    else:  # one number, wherever it is
        with zipfile.ZipFile(path) as archive:
            begin = archive.infolist()[3].header_offset + 200
            size = archive.infolist()[3].file_size - 130
        sound[begin + int(share * size)] ^= 1
        path.write_bytes(sound)
    assert same(facts(small, tmp_path), fresh)
    (line,) = caplog.messages
    assert line.startswith(f"{path} is damaged and is written again (")
    assert "\n" not in line
    caplog.clear()
    assert same(facts(small, tmp_path), fresh)
    assert caplog.messages == []


def test_facts_do_not_depend_on_the_number_of_threads():
    """The number of OpenBLAS's threads is fixed when numpy is loaded, so each needs a process of its own."""
    program = """
import hashlib
from tests.datasets import make, noise
from vae.data import facts
y = [i % 3 for i in range(700)]
wide, tall = (make(noise(0, n, 1, 16, 16), y[:n], noise(1, 90, 1, 16, 16), y[:90], 3) for n in (130, 700))
for known in (wide, tall):
    for fact in vars(facts(known)).values():
        values = fact.values() if isinstance(fact, dict) else fact
        print(hashlib.sha256(repr([float(v) for v in values]).encode()).hexdigest())
"""
    found = set()
    for threads in ("1", "2"):
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1
    assert len(found.pop().split()) == 14


def test_facts_that_cannot_be_cached(small: ImageData, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert same(facts(small, tmp_path / "file"), facts(small))


def test_too_large_a_covariance_is_refused(small: ImageData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset_facts, "MAX_COVARIANCE", 8)
    with pytest.raises(ConfigError, match=r"^dataset\.size=3: 9 values per image and 9 training images") as caught:
        facts(small)
    assert "\n" not in str(caught.value)


# --- The whole MNIST and CIFAR-10, where they are at hand


def test_facts_of_the_whole_mnist():
    root = os.environ.get("VAE_MNIST_ROOT")
    if not root:
        pytest.skip("VAE_MNIST_ROOT, the folder that holds MNIST/raw, is not set")
    mnist = load(Dataset(kind="mnist", root=root))
    known = facts(mnist)
    assert (len(mnist.train_x), len(mnist.test_x)) == (60000, 10000)
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
    cifar = load(folder_config(Path(root), size=32))
    known = facts(cifar)
    assert (len(cifar.train_x), len(cifar.test_x)) == (50000, 10000)
    assert round(known.sse_mean["train"], 2) == 188.65
    assert round(known.eigenvalues[0], 2) == 55.05
