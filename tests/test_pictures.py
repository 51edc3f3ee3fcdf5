"""The pictures of a trained model, against what the model itself gives and slow searches."""

import dataclasses

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import make_data
from vae import pictures
from vae.data import ImageData
from vae.layers import generator
from vae.model import Architecture, ConditionalVAE
from vae.trained import TrainedVAE


def model_of(data: ImageData, z_dim: int = 4, repeat: tuple[int, int] = (2, 2), scale: float = 3.0) -> TrainedVAE:
    """An untrained linear model, its posterior means scaled so that all dimensions are active."""
    arch = Architecture("linear", data.image_shape, data.n_classes, z_dim, *repeat)
    weights = dict(ConditionalVAE(arch, [generator(0, "init")]).state_dict())
    weights["encoder.net.weight"] = weights["encoder.net.weight"] * scale
    return TrainedVAE(arch, {**weights, "log_x_var": torch.tensor(-2.0)}, data.classes, "cpu")


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the sheets drawn since the test began were made of."""
    made: list[dict] = []
    original = pictures.sheet

    def keeping(rows: Tensor, labels: list[str], **more: object) -> Image.Image:
        made.append({"rows": rows, "labels": labels, **more})
        return original(rows, labels, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pictures, "sheet", keeping)
    return made


# --- The sheet


def test_headings_captions_and_a_note_move_the_images_and_change_none():
    rows = torch.linspace(0, 1, 6).reshape(2, 3, 1, 1, 1).expand(2, 3, 1, 28, 28)
    plain = pictures.sheet(rows, ["a", "b"])
    full = pictures.sheet(rows, ["a", "b"], columns="xyz", captions=["123", "456"], note="a note")
    step, left = 56 + pictures.GAP, plain.width - 3 * (56 + pictures.GAP)
    assert full.width == plain.width
    for r in range(2):
        for n in range(3):
            x = left + n * step + 28
            grey = round(255 * (3 * r + n) / 5)
            assert plain.getpixel((x, pictures.GAP + r * step + 28)) == (grey,) * 3
            top = pictures.GAP + pictures.LINE + r * (step + pictures.LINE)
            assert full.getpixel((x, top + 28)) == (grey,) * 3
            assert full.getpixel((x, top - 1)) == (255,) * 3
    assert full.height == plain.height + pictures.LINE * (1 + 2 + 1) + pictures.GAP


def test_a_long_heading_is_cut_and_a_long_note_is_broken():
    rows = torch.zeros(1, 2, 1, 28, 28)
    short = pictures.sheet(rows, [""], columns=["a", "b"])
    wide = pictures.sheet(rows, [""], columns=["a heading of many words", "b"], note="word " * 40)
    assert wide.width == short.width
    assert wide.height > short.height + 5 * pictures.LINE
    assert wide.crop((62, 0, wide.width, 15)).tobytes() == short.crop((62, 0, wide.width, 15)).tobytes()


# --- Traversals


def test_traversals_set_one_dimension_each_by_descending_kl(toy: ImageData, sheets: list[dict]):
    model = model_of(toy)
    pictures.traversals(model, toy)
    mu, logvar = model.encode(toy.test_x, toy.test_y)
    kl = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).mean(dim=0)
    order = kl.argsort(descending=True).tolist()
    rows, labels = sheets[0]["rows"], sheets[0]["labels"]
    assert labels == [f"z[{i}]   {kl[i]:.2f} nats" for i in order]
    assert "4 of 4 dimensions are active" in sheets[0]["note"]
    (at,) = (i for i in range(60) if torch.equal(toy.test_x[i].float() / 255, rows[0, 0]))
    torch.testing.assert_close(rows[2, 1], model.decode(mu[at : at + 1], toy.test_y[at : at + 1])[0])
    for r, i in enumerate(order):
        for column, value in ((2, -3.0), (8, 0.0), (14, 3.0)):
            z = mu[at : at + 1].clone()
            z[0, i] = value
            torch.testing.assert_close(rows[r, column], model.decode(z, toy.test_y[at : at + 1])[0])
            assert sheets[0]["columns"][column] == f"{value:g}"


def test_only_active_dimensions_are_traversed_and_one_where_none_is(toy: ImageData, sheets: list[dict]):
    model = model_of(toy)
    with torch.no_grad():
        model._model.encoder.net.weight[:, :, 2] = 0  # type: ignore[union-attr, operator, index]
    pictures.traversals(model, toy)
    assert len(sheets[0]["labels"]) == 3
    assert not any(label.startswith("z[2]") for label in sheets[0]["labels"])
    pictures.traversals(model_of(toy, scale=0.0), toy)
    assert len(sheets[1]["labels"]) == 1
    assert "0 of 4 dimensions are active" in sheets[1]["note"]


# --- Interpolations


@pytest.mark.parametrize(("repeat", "within"), [((2, 2), True), ((0, 2), True), ((2, 0), False), ((0, 0), False)])
def test_interpolations_go_from_one_reconstruction_to_the_other(
    toy: ImageData, sheets: list[dict], repeat: tuple[int, int], within: bool
):
    model = model_of(toy, repeat=repeat)
    pictures.interpolations(model, toy)
    rows, labels = sheets[0]["rows"], sheets[0]["labels"]
    images = toy.test_x.float() / 255
    for row, label in zip(rows, labels, strict=True):
        a, b = (next(i for i in range(60) if torch.equal(images[i], end)) for end in (row[0], row[-1]))
        names = [toy.classes[toy.test_y[i]] for i in (a, b)]
        assert label == (names[0] if names[0] == names[1] else " to ".join(names))
        assert not within or names[0] == names[1]
        assert a != b
        y = toy.test_y[[a, b]]
        torch.testing.assert_close(row[[1, -2]], model.reconstruct(toy.test_x[[a, b]], y))
        mu = model.encode(toy.test_x[[a, b]], y)[0]
        torch.testing.assert_close(row[6], model.decode(mu.mean(dim=0, keepdim=True), y[:1])[0])
    assert within or len({label for label in labels if " to " in label}) > 1


# --- The plane


def test_the_manifold_lies_at_the_quantiles_of_the_prior(toy: ImageData, sheets: list[dict]):
    model = model_of(toy, z_dim=2)
    pictures.manifold(model, toy)
    tiles = sheets[0]["rows"].flatten(0, 1)  # (classes, 1, 80, 80)
    assert tiles.shape == (3, 1, 80, 80)
    assert list(sheets[0]["captions"][0]) == ["c0", "c1", "c2"]
    normal = torch.distributions.Normal(0.0, 1.0)
    for c, column, row in ((0, 0, 0), (1, 9, 0), (2, 3, 7)):  # rows from the top
        share = torch.tensor([[(column + 0.5) / 10, (9 - row + 0.5) / 10]])
        expected = model.decode(normal.icdf(share), torch.tensor([c]))[0]
        tile = tiles[c, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        torch.testing.assert_close(tile, expected, atol=1e-5, rtol=1e-5)


def test_the_manifold_of_a_decoder_without_label_is_one_grid(toy: ImageData, sheets: list[dict]):
    pictures.manifold(model_of(toy, z_dim=2, repeat=(0, 0)), toy)
    assert sheets[0]["rows"].shape == (1, 1, 1, 160, 160)


@pytest.mark.parametrize("n_classes", [1, 3, 25])
def test_latents_are_drawn_for_any_number_of_classes(n_classes: int):
    data = make_data(n_classes=n_classes)
    image = pictures.latents(model_of(data, z_dim=3, repeat=(0, 0)), data)
    colours = {c for _, c in image.getcolors(maxcolors=2**24) or [] if max(c) - min(c) > 60}  # type: ignore[arg-type, type-var]
    assert len(colours) >= min(n_classes, 20)


def test_pictures_that_a_model_cannot_have_are_refused(toy: ImageData):
    with pytest.raises(ValueError, match="z_dim is 4, and a plane has 2"):
        pictures.manifold(model_of(toy), toy)
    with pytest.raises(ValueError, match="z_dim is 1"):
        pictures.latents(model_of(toy, z_dim=1), toy)
    with pytest.raises(ValueError, match="takes no label"):
        pictures.styles(model_of(toy, repeat=(2, 0)), toy)


# --- Classes and styles


def test_styles_keep_z_along_a_row_and_the_class_along_a_column(toy: ImageData, sheets: list[dict]):
    model = model_of(toy)
    pictures.styles(model, toy)
    rows = sheets[0]["rows"]
    assert sheets[0]["columns"] == ["input", "c0", "c1", "c2"]
    for row in rows:
        at = next(i for i in range(60) if torch.equal(toy.test_x[i].float() / 255, row[0]))
        mu = model.encode(toy.test_x[at : at + 1], toy.test_y[at : at + 1])[0]
        torch.testing.assert_close(row[1:], model.decode(mu.expand(3, -1), torch.arange(3)))


# --- Nearest training images


def test_the_nearest_are_those_of_a_slow_search(toy: ImageData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "CHUNK", 64)
    x = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    error, index = pictures.nearest(x, toy.train_x, 5)
    for b in range(7):
        slow = ((toy.train_x.double() / 255 - x[b].double()) ** 2).sum(dim=(1, 2, 3))
        assert index[b].tolist() == slow.argsort()[:5].tolist()
        torch.testing.assert_close(error[b].double(), slow[index[b]], rtol=1e-5, atol=0)


def test_a_copy_has_no_distance_and_few_images_have_few_neighbours(toy: ImageData):
    error, index = pictures.nearest(toy.train_x[[40, 3]].float() / 255, toy.train_x, 1)
    assert error.flatten().tolist() == [0.0, 0.0]
    assert index.flatten().tolist() == [40, 3]
    assert pictures.nearest(torch.rand(2, 1, 8, 8), toy.train_x[:3], 8)[0].shape == (2, 3)


def test_neighbours_stand_beside_their_sample_with_their_errors(toy: ImageData, sheets: list[dict]):
    model = model_of(toy)
    pictures.neighbours(model, toy)
    made = sheets[0]
    assert made["labels"] == ["c0"] * 4 + ["c1"] * 3 + ["c2"] * 3
    for row, captions in zip(made["rows"], made["captions"], strict=True):
        errors = (row[1:] - row[0]).square().sum(dim=(1, 2, 3)).tolist()
        assert list(captions) == ["", *(f"{e:.3g}" for e in errors)]
        assert errors == sorted(errors)
        best = (toy.train_x.float() / 255 - row[0]).square().sum(dim=(1, 2, 3)).min().item()
        assert errors[0] == pytest.approx(best, rel=1e-5)
    held_out = torch.cdist(toy.test_x.flatten(1) / 255, toy.train_x.flatten(1) / 255).square().amin(dim=1)
    low, middle, high = held_out.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    assert f"held-out images {middle:.3g} ({low:.3g} to {high:.3g})" in made["note"]


@pytest.mark.parametrize("n_classes", [1, 3, 12])
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 9, 7), (3, 64, 64)])
def test_every_picture_of_small_and_odd_data(image_shape: tuple[int, int, int], n_classes: int):
    data = make_data(n_train=20, n_test=5, image_shape=image_shape, n_classes=n_classes)
    model = model_of(data, z_dim=2, repeat=(0, 0) if n_classes == 1 else (1, 1))
    for name, draw in pictures.PICTURES.items():
        if name == "styles" and n_classes == 1:
            continue
        image = draw(model, data)
        assert image.mode == "RGB"
        assert 100 < image.width < 2500


def test_one_held_out_image_is_enough(toy: ImageData):
    data = dataclasses.replace(toy, test_x=toy.test_x[:1], test_y=toy.test_y[:1])
    for draw in pictures.PICTURES.values():
        draw(model_of(data, z_dim=2), data)
