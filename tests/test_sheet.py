"""Sheets and scatter plots: pixels where they belong, and both through an npz file."""

import io

import numpy as np
import pytest

from vae.sheet import GAP, LINE, Scatter, Sheet


def greys(n_rows: int, n_columns: int, size: int = 28) -> np.ndarray:
    """Images of one grey each, from black to white: (R, N, 1, H, W)."""
    values = np.linspace(0, 255, n_rows * n_columns).round().astype(np.uint8)
    return np.broadcast_to(values.reshape(n_rows, n_columns, 1, 1, 1), (n_rows, n_columns, 1, size, size))


def test_pixels_are_enlarged_and_placed():
    image = Sheet(greys(1, 3, size=8), [""]).draw()
    step = 8 * 7 + GAP
    assert [image.getpixel((GAP + n * step + 3, GAP + 3)) for n in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]


def test_colours_keep_their_channels():
    images = np.zeros((1, 1, 3, 28, 28), np.uint8)
    images[:, :, 1] = 200
    assert Sheet(images, [""]).draw().getpixel((GAP + 20, GAP + 20)) == (0, 200, 0)


def test_headings_captions_and_a_note_move_the_images_and_change_none():
    plain = Sheet(greys(2, 3), ["a", "b"]).draw()
    full = Sheet(greys(2, 3), ["a", "b"], columns="xyz", captions=["123", "456"], note="a note").draw()
    step, left = 56 + GAP, plain.width - 3 * (56 + GAP)
    assert full.width == plain.width
    for r in range(2):
        for n in range(3):
            x = left + n * step + 28
            grey = round(255 * (3 * r + n) / 5)
            assert plain.getpixel((x, GAP + r * step + 28)) == (grey,) * 3
            top = GAP + LINE + r * (step + LINE)
            assert full.getpixel((x, top + 28)) == (grey,) * 3
            assert full.getpixel((x, top - 1)) == (255,) * 3
    assert full.height == plain.height + LINE * (1 + 2 + 1) + GAP


def test_a_long_heading_is_cut_and_a_long_note_is_broken():
    short = Sheet(greys(1, 2), [""], columns=["a", "b"]).draw()
    wide = Sheet(greys(1, 2), [""], columns=["a heading of many words", "b"], note="word " * 40).draw()
    assert wide.width == short.width
    assert wide.height > short.height + 5 * LINE
    assert wide.crop((62, 0, wide.width, 15)).tobytes() == short.crop((62, 0, wide.width, 15)).tobytes()


def scatter(n_classes: int) -> Scatter:
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(min(20, n_classes))]
    y = np.arange(200) % n_classes
    return Scatter(rng.normal(size=(200, 2)).astype(np.float32), y, names, n_classes, ["left", "up"], "a title")


@pytest.mark.parametrize("n_classes", [1, 3, 25])
def test_classes_have_colours_of_their_own(n_classes: int):
    colours = {c for _, c in scatter(n_classes).draw().getcolors(maxcolors=2**24) or [] if max(c) - min(c) > 60}  # type: ignore[arg-type, type-var]
    assert len(colours) >= min(n_classes, 20)


@pytest.mark.parametrize(
    "picture",
    [
        Sheet(
            greys(2, 3), ["a", "b"], columns=["x", "y", "z"], captions=[list("123"), list("456")], note="µ is a note"
        ),
        Sheet(greys(1, 1), [""]),
        scatter(25),
    ],
)
def test_a_picture_read_from_a_file_is_the_same(picture: Sheet | Scatter):
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        np.savez(file, allow_pickle=False, **picture.arrays("name"))
    assert files[0].getvalue() == files[1].getvalue()
    files[0].seek(0)
    with np.load(files[0], allow_pickle=False) as arrays:
        assert type(picture).read(arrays, "name").draw().tobytes() == picture.draw().tobytes()
