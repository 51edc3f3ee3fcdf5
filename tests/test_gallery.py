"""The pictures of a trained model, against what the model itself gives and slow searches."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import make_data
from tests.models import linear_model
from vae import gallery
from vae.data import ImageData
from vae.gallery import levels
from vae.sheet import Scatter, Sheet


def same(got: np.ndarray, images: Tensor) -> None:
    """Bytes that are those of images; where a batch of another size rounds differently, the next ones."""
    assert np.abs(got.astype(int) - levels(images)).max() <= 1


def index_of(data: ImageData, image: np.ndarray) -> int:
    """Which held-out image this is."""
    (found,) = (i for i, x in enumerate(data.test_x) if np.array_equal(x, image))
    return found


def test_levels_are_bytes_of_clipped_values():
    assert levels(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


# --- Samples and reconstructions


def test_samples_are_one_row_per_class_where_the_decoder_takes_it(toy: ImageData):
    model = linear_model(toy)
    sheet = gallery.samples(model)
    assert sheet.images.shape == (3, 10, 1, 8, 8)
    assert sheet.labels == ["c0", "c1", "c2"]
    np.testing.assert_array_equal(sheet.images[1], levels(model.sample(1, n=10)))
    free = linear_model(toy, repeat=(2, 0))
    sheet = gallery.samples(free)
    assert sheet.labels == [""] * 10
    np.testing.assert_array_equal(sheet.images.reshape(100, 1, 8, 8), levels(free.sample(n=100)))


@pytest.mark.parametrize(("n_test", "n_rows"), [(60, 4), (7, 2)])
def test_reconstructions_lie_under_their_inputs(n_test: int, n_rows: int):
    data = make_data(n_test=n_test)
    model = linear_model(data)
    sheet = gallery.reconstructions(model, data)
    assert sheet.labels == ["input", "output"] * (n_rows // 2)
    for inputs, outputs in zip(sheet.images[::2], sheet.images[1::2], strict=True):
        for x, x_hat in zip(inputs, outputs, strict=True):
            at = index_of(data, x)
            same(x_hat, model.reconstruct(data.test_x[[at]], data.test_y[[at]])[0])


# --- Traversals


def test_traversals_move_one_dimension_each_by_descending_kl(toy: ImageData):
    model = linear_model(toy)
    sheet = gallery.traversals(model, toy)
    mu, logvar = model.encode(toy.test_x, toy.test_y)
    kl = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).mean(dim=0)
    order = kl.argsort(descending=True).tolist()
    assert sheet.labels == [f"z[{i}]   {kl[i]:.2f} nats" for i in order]
    assert "4 of 4 dimensions are active" in sheet.note
    at = index_of(toy, sheet.images[0, 0])
    y = toy.test_y[at : at + 1]
    same(sheet.images[2, 1], model.decode(mu[at : at + 1], y)[0])
    for r, i in enumerate(order):
        for column, value in ((2, -3.0), (8, 0.0), (14, 3.0)):
            z = mu[at : at + 1].clone()
            z[0, i] = value
            same(sheet.images[r, column], model.decode(z, y)[0])
            assert sheet.columns[column] == f"{value:g}"


def test_only_active_dimensions_are_traversed_and_one_where_none_is(toy: ImageData):
    model = linear_model(toy)
    weight = model.module.encoder.net.weight  # type: ignore[union-attr]
    with torch.no_grad():
        weight[2] = 0  # type: ignore[operator, index]
    labels = gallery.traversals(model, toy).labels
    assert len(labels) == 3
    assert not any(label.startswith("z[2]") for label in labels)
    sheet = gallery.traversals(linear_model(toy, scale=0.0), toy)
    assert len(sheet.labels) == 1
    assert "0 of 4 dimensions are active" in sheet.note


# --- Interpolations


@pytest.mark.parametrize(("repeat", "within"), [((2, 2), True), ((0, 2), True), ((2, 0), False), ((0, 0), False)])
def test_interpolations_go_from_one_reconstruction_to_the_other(toy: ImageData, repeat: tuple[int, int], within: bool):
    model = linear_model(toy, repeat=repeat)
    sheet = gallery.interpolations(model, toy)
    for row, label in zip(sheet.images, sheet.labels, strict=True):
        a, b = index_of(toy, row[0]), index_of(toy, row[-1])
        names = [toy.classes[toy.test_y[i]] for i in (a, b)]
        assert label == (names[0] if names[0] == names[1] else " to ".join(names))
        assert not within or names[0] == names[1]
        assert a != b
        y = toy.test_y[[a, b]]
        same(row[[1, -2]], model.reconstruct(toy.test_x[[a, b]], y))
        mu = model.encode(toy.test_x[[a, b]], y)[0]
        same(row[6], model.decode(mu.mean(dim=0, keepdim=True), y[:1])[0])
    assert within or any(" to " in label for label in sheet.labels)


# --- The plane


def test_the_manifold_lies_at_the_quantiles_of_the_prior(toy: ImageData):
    model = linear_model(toy, z_dim=2)
    sheet = gallery.manifold(model, toy)
    tiles = sheet.images.reshape(-1, *sheet.images.shape[2:])  # (classes, 1, 80, 80)
    assert tiles.shape == (3, 1, 80, 80)
    assert list(sheet.captions[0]) == ["c0", "c1", "c2"]
    normal = torch.distributions.Normal(0.0, 1.0)
    for c, column, row in ((0, 0, 0), (1, 9, 0), (2, 3, 7)):  # rows from the top
        share = torch.tensor([[(column + 0.5) / 10, (9 - row + 0.5) / 10]])
        expected = model.decode(normal.icdf(share), torch.tensor([c]))[0]
        same(tiles[c, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8], expected)


def test_the_manifold_of_a_decoder_without_label_is_one_grid(toy: ImageData):
    assert gallery.manifold(linear_model(toy, z_dim=2, repeat=(0, 0)), toy).images.shape == (1, 1, 1, 160, 160)


def test_latents_are_the_mu_of_held_out_images_in_the_dimensions_of_most_kl(toy: ImageData):
    model = linear_model(toy)
    plot = gallery.latents(model, toy)
    mu, logvar = model.encode(toy.test_x, toy.test_y)
    kl = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).mean(dim=0)
    most = sorted(kl.argsort(descending=True)[:2].tolist())
    assert [axis.partition(" (")[0] for axis in plot.axes] == [f"mu of z[{i}]" for i in most]
    expected = torch.cat([mu[:, most], toy.test_y[:, None]], dim=1)
    got = torch.cat([torch.from_numpy(plot.points), torch.from_numpy(plot.y)[:, None]], dim=1)
    torch.testing.assert_close(got[got[:, 0].argsort()], expected[expected[:, 0].argsort()])


@pytest.mark.parametrize(
    ("z_dim", "repeat", "names"),
    [
        (1, (0, 0), ["traversals", "interpolations", "neighbours"]),
        (2, (2, 0), ["traversals", "interpolations", "manifold", "latents", "neighbours"]),
        (4, (2, 2), ["traversals", "interpolations", "latents", "styles", "neighbours"]),
    ],
)
def test_a_model_has_the_pictures_that_apply_and_refuses_the_others(
    toy: ImageData, z_dim: int, repeat: tuple[int, int], names: list[str]
):
    model = linear_model(toy, z_dim, repeat)
    assert gallery.applicable(model) == names
    for name, picture in gallery.SHEETS.items():
        if name in names:
            assert isinstance(picture(model, toy), Scatter if name == "latents" else Sheet)
        else:
            with pytest.raises(ValueError, match=r"plane|does not receive the label"):
                picture(model, toy)


@pytest.mark.parametrize("n_classes", [1, 3, 25])
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 9, 7), (3, 64, 64)])
def test_every_picture_of_small_and_odd_data(image_shape: tuple[int, int, int], n_classes: int):
    data = make_data(n_train=40, n_test=5, image_shape=image_shape, n_classes=n_classes)
    model = linear_model(data, z_dim=2, repeat=(0, 0) if n_classes == 1 else (1, 1))
    drawn = [gallery.SHEETS[name](model, data).draw() for name in gallery.applicable(model)]
    for image in [*drawn, gallery.samples(model).draw()]:
        assert image.mode == "RGB"
        assert 100 < image.width < 2500


def test_one_held_out_image_is_enough(toy: ImageData):
    data = dataclasses.replace(toy, test_x=toy.test_x[:1], test_y=toy.test_y[:1])
    model = linear_model(data, z_dim=2)
    assert all(gallery.SHEETS[name](model, data).draw() for name in gallery.applicable(model))


# --- Classes and styles


def test_styles_keep_z_along_a_row_and_the_class_along_a_column(toy: ImageData):
    model = linear_model(toy)
    sheet = gallery.styles(model, toy)
    assert sheet.columns == ["input", "c0", "c1", "c2"]
    for row in sheet.images:
        at = index_of(toy, row[0])
        mu = model.encode(toy.test_x[at : at + 1], toy.test_y[at : at + 1])[0]
        same(row[1:], model.decode(mu.expand(3, -1), torch.arange(3)))


# --- Nearest training images


def test_the_nearest_are_those_of_a_slow_search(toy: ImageData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gallery, "CHUNK", 64)
    x = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    error, index = gallery.nearest(x, toy.train_x, 5)
    for b in range(7):
        slow = ((toy.train_x.double() / 255 - x[b].double()) ** 2).sum(dim=(1, 2, 3))
        assert index[b].tolist() == slow.argsort()[:5].tolist()
        torch.testing.assert_close(error[b].double(), slow[index[b]], rtol=1e-5, atol=0)


def test_a_copy_has_no_distance_and_few_images_have_few_neighbours(toy: ImageData):
    error, index = gallery.nearest(toy.train_x[[40, 3]].float() / 255, toy.train_x, 1)
    assert error.flatten().tolist() == [0.0, 0.0]
    assert index.flatten().tolist() == [40, 3]
    assert gallery.nearest(torch.rand(2, 1, 8, 8), toy.train_x[:3], 8)[0].shape == (2, 3)


def test_neighbours_stand_beside_their_sample_with_their_errors(toy: ImageData):
    model = linear_model(toy)
    sheet = gallery.neighbours(model, toy)
    assert sheet.labels == ["c0"] * 4 + ["c1"] * 3 + ["c2"] * 3
    drawn = model.sample(torch.arange(10) * 3 // 10).clamp(0, 1)
    train = toy.train_x.float() / 255
    for sample, row, captions in zip(drawn, sheet.images, sheet.captions, strict=True):
        same(row[0], sample)
        errors = (torch.from_numpy(row[1:]) / 255 - sample).square().sum(dim=(1, 2, 3)).tolist()
        assert list(captions) == ["", *(f"{e:.3g}" for e in errors)]
        assert errors == sorted(errors)
        assert errors[0] == pytest.approx((train - sample).square().sum(dim=(1, 2, 3)).min().item(), rel=1e-5)
    held_out = torch.cdist(toy.test_x.flatten(1) / 255, toy.train_x.flatten(1) / 255).square().amin(dim=1)
    low, middle, high = held_out.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    assert f"held-out images {middle:.3g} ({low:.3g} to {high:.3g})" in sheet.note
