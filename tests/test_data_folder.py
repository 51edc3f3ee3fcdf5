"""Folders of pictures and the cache of their pixels, against pictures made by hand."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets import folder_config, noise, one_line_error, save
from vae.config import Dataset
from vae.data import load, pixels

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


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
    original = pixels.read

    def counting(path: Path, *args: Any) -> np.ndarray:
        seen.append(path)
        return original(path, *args)

    monkeypatch.setattr(pixels, "read", counting)
    return seen


# --- Folders of pictures


def test_image_folder_sorts_classes_and_files(folder: Path):
    pets = load(folder_config(folder))
    assert pets.name == "pets"
    assert pets.classes == ("cat", "dog")
    assert pets.train_y.tolist() == [0, 0, 0, 1, 1]
    assert pets.test_y.tolist() == [0, 1]
    expected = np.stack([noise(seed, 8, 8, 3) for seed in (1, 2, 3, 0, 4)]).transpose(0, 3, 1, 2)
    assert np.array_equal(pets.train_x.numpy(), expected)
    assert pets.image_shape == (3, 8, 8)


def test_image_folder_passes_over_hidden_and_other_files(folder: Path):
    plain = load(folder_config(folder))
    (folder / "train/cat/.hidden.png").write_bytes(b"")
    (folder / "train/cat/notes.txt").write_text("not a picture")
    (folder / "train/cat/nested.png").mkdir()
    (folder / "train/.thumbnails").mkdir()
    (folder / "train/readme.md").write_text("not a class")
    assert load(folder_config(folder)).content_hash == plain.content_hash


def test_image_folder_reads_suffixes_in_capitals_and_a_single_class(tmp_path: Path):
    save(tmp_path / "train/all/A.PNG", noise(0, 8, 8))
    save(tmp_path / "test/all/B.Bmp", noise(1, 8, 8))
    grey = load(folder_config(tmp_path, channels=1))
    assert grey.n_classes == 1
    assert grey.source == f"{tmp_path}: its own split, .bmp, .png files, resized to 8x8, grey"
    assert np.array_equal(grey.train_x.numpy(), noise(0, 1, 1, 8, 8))
    assert np.array_equal(grey.test_x.numpy(), noise(1, 1, 1, 8, 8))


def test_image_folder_may_lack_held_out_pictures_of_a_class(folder: Path):
    shutil.rmtree(folder / "test/cat")
    pets = load(folder_config(folder))
    assert pets.test_y.tolist() == [1]


def test_image_folder_without_a_split_holds_out_every_fifth(tmp_path: Path):
    for i in range(11):
        save(tmp_path / f"pets/cat/{i:02}.png", noise(i, 8, 8, 3))
    for i in range(5):
        save(tmp_path / f"pets/dog/{i}.png", noise(20 + i, 8, 8, 3))
    pets = load(folder_config(tmp_path / "pets"))
    assert pets.classes == ("cat", "dog")
    assert np.array_equal(pets.test_x.numpy(), np.stack([noise(i, 8, 8, 3) for i in (4, 9, 24)]).transpose(0, 3, 1, 2))
    assert pets.train_y.tolist() == [0] * 9 + [1] * 4
    assert (
        pets.source == f"{tmp_path}/pets: every fifth image of a class is held out, .png files, resized to 8x8, colour"
    )
    assert load(folder_config(tmp_path / "pets")).content_hash == pets.content_hash  # from the cache


def test_image_folder_of_pictures_without_classes(tmp_path: Path):
    for i in range(6):
        save(tmp_path / f"{i}.png", noise(i, 8, 8))
    pictures = load(folder_config(tmp_path, channels=1))
    assert pictures.classes == ("all",)
    assert np.array_equal(pictures.train_x.numpy(), np.stack([noise(i, 1, 8, 8) for i in (0, 1, 2, 3, 5)]))
    assert np.array_equal(pictures.test_x.numpy(), noise(4, 1, 1, 8, 8))


def turned(orientation: int) -> dict[str, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def left_right(left: tuple[int, ...], right: tuple[int, ...]) -> np.ndarray:
    """(3, 8, 8), as `pixels.read` gives it."""
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
    found = pixels.read(save(tmp_path / f"x.{suffix}", picture, **options), 8, 3)
    if expected is None:  # resized or lossy: the two columns at the edge between the colours mix
        difference = np.abs(found.astype(int) - left_right(RED, BLUE))
        assert difference[:, :, [0, 1, 2, 5, 6, 7]].max() <= 3
    else:
        assert np.array_equal(found, expected)


def test_pictures_of_16_bits_keep_their_range(tmp_path: Path):
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040  # up to 65520
    path = save(tmp_path / "x.png", ramp)
    assert np.array_equal(pixels.read(path, 8, 1)[0], ramp // 257)


def test_pictures_of_floating_point_are_refused(folder: Path):
    save(folder / "train/cat/float.tif", np.ones((8, 8), dtype=np.float32))
    assert "train/cat/float.tif (floating-point" in one_line_error(folder_config(folder))


@pytest.mark.parametrize(("width", "height"), [(16, 8), (8, 16), (17, 8), (8, 9)])
def test_pictures_that_are_not_square_are_cropped_to_the_centre(tmp_path: Path, width: int, height: int):
    image = noise(0, height, width, 3)
    path = save(tmp_path / "x.png", image)
    top, left = (height - 8) // 2, (width - 8) // 2
    assert np.array_equal(pixels.read(path, 8, 3), image[top : top + 8, left : left + 8].transpose(2, 0, 1))


def test_colour_becomes_grey_by_luma(tmp_path: Path):
    path = save(tmp_path / "x.png", noise(0, 8, 8, 3))
    luma = noise(0, 8, 8, 3) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels.read(path, 8, 1)[0] - luma).max() < 1


def test_a_large_jpeg_is_much_the_same_as_when_decoded_in_full(tmp_path: Path):
    y, x = np.mgrid[:500, :700] / 40
    wave = (127 * (1 + np.sin(x + 2 * np.sin(y)))).astype(np.uint8)
    path = save(tmp_path / "x.jpg", np.stack([wave, wave.T[:500, :500].repeat(2, 1)[:, :700], 255 - wave], axis=2))
    with Image.open(path) as image:
        full = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, box=(100, 0, 600, 500)))
    assert np.abs(pixels.read(path, 32, 3).transpose(1, 2, 0).astype(int) - full).max() <= 8


def test_many_large_pictures_are_decoded_in_order_by_threads(tmp_path: Path):
    for i in range(150):
        save(tmp_path / f"train/a/{i:03}.bmp", np.full((64, 64, 3), i, dtype=np.uint8))
    save(tmp_path / "test/a/0.bmp", np.full((64, 64, 3), 200, dtype=np.uint8))
    images = load(folder_config(tmp_path))
    assert images.train_x.float().mean(dim=(1, 2, 3)).tolist() == list(range(150))


def test_image_folder_lets_no_warning_out(folder: Path, monkeypatch: pytest.MonkeyPatch):
    original = pixels.read

    def warning(*args: Any) -> np.ndarray:
        warnings.warn("Pillow is worried", stacklevel=2)
        return original(*args)

    monkeypatch.setattr(pixels, "read", warning)
    load(folder_config(folder))


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


def remove_both(root: Path) -> None:
    remove_train(root)
    remove_test(root)


def too_few(root: Path) -> None:
    remove_test(root)
    shutil.move(root / "train/cat", root)
    remove_train(root)


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
        (remove_classes, "test holds no pictures"),
        (remove_both, "holds no pictures; allowed: "),
        (too_few, "cannot be split; allowed: folders train and test, or five pictures of a class (no class has five"),
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
    fresh = load(folder_config(folder))
    assert len(decodes) == 7
    cached = load(folder_config(folder))
    assert len(decodes) == 7
    assert torch.equal(cached.train_x, fresh.train_x)
    assert torch.equal(cached.test_x, fresh.test_x)
    assert cached.train_y.tolist() == fresh.train_y.tolist()
    assert cached.content_hash == fresh.content_hash
    assert [path.name for path in (folder / ".vae-cache").iterdir()] == ["8x8x3.npz"]


def test_each_size_and_number_of_channels_has_its_own_cache(folder: Path, decodes: list[Path]):
    for _ in range(2):
        assert load(folder_config(folder)).image_shape == (3, 8, 8)
        assert load(folder_config(folder, channels=1)).image_shape == (1, 8, 8)
        assert load(folder_config(folder, size=16)).image_shape == (3, 16, 16)
    assert len(decodes) == 21


def test_a_moved_folder_keeps_its_cache_and_its_hash(folder: Path, decodes: list[Path]):
    before = load(folder_config(folder))
    moved = folder.rename(folder.with_name("animals"))
    after = load(folder_config(moved))
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
    before = load(folder_config(folder))
    change(folder)
    after = load(folder_config(folder))
    assert after.content_hash != before.content_hash
    shutil.rmtree(folder / ".vae-cache")
    assert load(folder_config(folder)).content_hash == after.content_hash


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
    fresh = load(folder_config(folder))
    damage(folder / ".vae-cache/8x8x3.npz")
    assert load(folder_config(folder)).content_hash == fresh.content_hash
    assert len(decodes) == 14
    assert load(folder_config(folder)).content_hash == fresh.content_hash
    assert len(decodes) == 14


def test_a_folder_that_cannot_be_written_has_just_no_cache(
    folder: Path, decodes: list[Path], caplog: pytest.LogCaptureFixture
):
    (folder / ".vae-cache").write_text("a file in the way")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert len(load(folder_config(folder)).train_x) == 5
    assert len(decodes) == 14
    assert "not cached" in caplog.text
    assert (folder / ".vae-cache").read_text() == "a file in the way"


def test_a_cache_is_never_half_written(folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = load(folder_config(folder))
    cache = folder / ".vae-cache/8x8x3.npz"
    old = cache.read_bytes()
    add_picture(folder)

    def full_disk(file: Any, **arrays: np.ndarray) -> None:
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    assert len(load(folder_config(folder)).train_x) == len(before.train_x) + 1
    assert cache.read_bytes() == old
    assert list(cache.parent.iterdir()) == [cache]
