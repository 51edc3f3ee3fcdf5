"""The arrays of the pictures are those of vae/gallery.py, and the drawings are of these arrays."""

import io

import numpy as np

from tests.conftest import tiny_config
from tests.models import new_stack, subject_of
from vae import gallery
from vae.data import ImageData
from vae.metrics import Result, compute
from vae.sheet import Scatter, Sheet


def npz(result: Result) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **result.arrays)
    return file.getvalue()


def test_pictures_hold_samples_and_held_out_images_with_their_reconstructions(toy: ImageData):
    subject = subject_of(new_stack(toy, tiny_config()), toy)
    result = compute("pictures", subject)
    arrays = result.arrays
    assert arrays["samples"].shape == (3, 10, 1, 8, 8)
    assert arrays["sample_labels"].tolist() == ["c0", "c1", "c2"]
    assert arrays["inputs"].shape == arrays["reconstructions"].shape == (20, 1, 8, 8)
    sheet = gallery.reconstructions(subject.model, toy)
    np.testing.assert_array_equal(arrays["inputs"][:10], sheet.images[0])
    np.testing.assert_array_equal(arrays["inputs"][10:], sheet.images[2])
    np.testing.assert_array_equal(arrays["reconstructions"][10:], sheet.images[3])
    assert {array.dtype.kind for array in arrays.values()} == {"u", "U"}
    assert list(result.images) == ["samples", "reconstructions"]
    assert (
        result.images["samples"].tobytes()
        == Sheet(arrays["samples"], arrays["sample_labels"].tolist()).draw().tobytes()
    )
    assert not result.values


def test_the_gallery_can_be_drawn_from_its_arrays(toy: ImageData):
    subject = subject_of(new_stack(toy, tiny_config()), toy)
    result = compute("gallery", subject)
    assert list(result.images) == gallery.applicable(subject.model)
    assert {"traversals", "traversals_meta", "latents_mu", "latents_y", "latents_meta"} < set(result.arrays)
    for name, image in result.images.items():
        kind = Scatter if name == "latents" else Sheet
        assert kind.read(result.arrays, name).draw().tobytes() == image.tobytes()


def test_files_of_the_same_model_are_byte_identical(toy: ImageData):
    stack = new_stack(toy, tiny_config())
    for family in ("pictures", "gallery"):
        assert npz(compute(family, subject_of(stack, toy))) == npz(compute(family, subject_of(stack, toy)))
