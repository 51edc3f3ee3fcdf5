"""Fits to latents that are known, and samples of them."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_data, tiny_config
from tests.models import exact_linear_model, new_stack, set_exact_posterior, subject_of
from vae import judge
from vae.data import ImageData
from vae.metrics import METRICS, Subject, compute, expost
from vae.seeding import generator

COLUMNS = {name for name, metric in METRICS.items() if metric.family == "expost"}


def linear(data: ImageData, placement: str = "both", z_dim: int = 4, shift: float = 0.0, cache: Path | None = None):
    """A linear VAE at its optimum. With a shift, z lies around that number instead of 0, and the decoder undoes it."""
    t = 1e-3
    config = tiny_config(z_dim__value=z_dim, label_placement__kind=placement)
    stack, _, _ = exact_linear_model(data, config, t)
    x = data.train_x.flatten(1).float() / 255  # (N, D)
    y = data.train_y if placement == "both" else 0 * data.train_y
    offsets = torch.stack([x[y == (c if (y == c).any() else 0)].mean(dim=0) for c in range(data.n_classes)])
    values, vectors = torch.linalg.eigh((x - offsets[y]).T.cov())
    loadings = (values - t).clamp(min=0).sqrt().flip(0)[:z_dim, None] * vectors.T.flip(0)[:z_dim]  # (k, D)
    set_exact_posterior(stack, loadings, offsets[0], offsets - offsets[0], t)
    stack.parameters["encoder.net.bias"].data += shift
    stack.parameters["decoder.net.layers.0.bias"].data -= shift * loadings.sum(dim=0)
    subject = subject_of(stack, data)
    return dataclasses.replace(subject, cache=cache) if cache else subject


def means(subject: Subject) -> np.ndarray:
    return subject.model.encode(subject.data.train_x, subject.data.train_y)[0].double().numpy()


def test_a_gaussian_per_class_if_the_decoder_receives_the_label_else_one(toy: ImageData):
    for placement, groups in (("both", [toy.train_y == c for c in range(3)]), ("none", [toy.train_y >= 0])):
        subject = linear(toy, placement)
        mu = means(subject)
        fitted = expost.fits(subject)["gaussian"]
        assert len(fitted) == len(groups)
        for own, group in zip(fitted, groups, strict=True):
            np.testing.assert_allclose(own.means[0], mu[group].mean(axis=0), atol=1e-6)
            np.testing.assert_allclose(own.covariances[0], np.cov(mu[group].T, bias=True), atol=1e-6)


def test_a_class_with_few_images_has_the_covariance_within_all_classes(toy: ImageData):
    """Class 2 has four images for four latent dimensions; a fourth class has none."""
    y = torch.where(torch.arange(300) < 4, 2, torch.arange(300) % 2)
    data = dataclasses.replace(toy, train_y=y, classes=(*toy.classes, "none of them"))
    subject = linear(data)
    mu, fits = means(subject), expost.fits(subject)
    centred = mu - np.stack([mu[y == c].mean(axis=0) for c in y.tolist()])
    for own in (fits["gaussian"][2], fits["gaussian"][3], fits["mixture"][2]):
        assert len(own.weights) == 1
        np.testing.assert_allclose(own.covariances[0], centred.T @ centred / 300, atol=1e-6)
    np.testing.assert_allclose(fits["gaussian"][2].means[0], mu[:4].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(fits["gaussian"][3].means[0], mu.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(fits["gaussian"][0].covariances[0], np.cov(mu[y == 0].T, bias=True), atol=1e-6)


@pytest.mark.parametrize(("z_dim", "n_components"), [(2, 10), (10, 5), (30, 1), (64, 1)])
def test_components_are_as_many_as_the_images_allow(z_dim: int, n_components: int, toy: ImageData):
    """100 images per class, at least two per latent dimension and component."""
    fitted = expost.fits(linear(toy, z_dim=z_dim))["mixture"]
    assert [len(own.weights) for own in fitted] == [n_components] * 3


def test_the_fit_follows_the_latents_where_the_prior_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At the optimum the prior fits as well. With z around 6 instead of 0, all but the samples of the prior stay."""
    monkeypatch.setattr(judge, "MIN_STEPS", 1)
    data = make_data(n_train=400)
    found = []
    for shift in (0.0, 6.0):
        subject = linear(data, shift=shift, cache=tmp_path)
        found.append(compute("generation", subject).values | compute("expost", subject).values)
    right, shifted = found
    assert set(right) >= COLUMNS
    assert right["expost_gaussian_ffd"] == pytest.approx(right["sample_ffd"], rel=0.3)
    assert shifted["sample_ffd"] > 5 * right["sample_ffd"]
    for name in ("reconstruction_ffd", "expost_gaussian_ffd", "expost_gaussian_coverage", "expost_mixture_ffd"):
        assert shifted[name] == pytest.approx(right[name], rel=0.01)


def test_scores_are_those_of_decoded_samples_of_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judge, "MIN_STEPS", 1)
    data = make_data(n_train=400)
    subject = linear(data, cache=tmp_path)
    values, made = compute("expost", subject).values, judge.Judge.of(data, tmp_path)
    y = data.test_y[made.held_out]
    z = expost.drawn(expost.fits(subject)["mixture"], y, generator(subject.config.seed, "expost mixture"))
    expected = judge.scores(
        made, subject.model.decode(z, y), y, subject.model.reconstruct(data.test_x[made.held_out], y)
    )
    for name in judge.SAMPLE_SCORES:
        assert values[f"expost_mixture_{name}"] == expected[f"sample_{name}"]


def test_each_label_is_drawn_from_its_own_density(toy: ImageData):
    subject = linear(toy)
    densities = [
        dataclasses.replace(own, means=own.means * 0 + 100 * c)
        for c, own in enumerate(expost.fits(subject)["gaussian"])
    ]
    y = torch.tensor([2, 0, 1, 1, 0])
    z = expost.drawn(densities, y, generator(0, "draw"))
    assert (z.mean(dim=1) / 100).round().tolist() == y.tolist()


def test_files_are_the_same_whatever_the_number_of_threads(
    toy: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(judge, "MIN_STEPS", 1)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(compute("expost", linear(toy, z_dim=8, cache=tmp_path)))
    torch.set_num_threads(1)
    assert found[0].values == found[1].values
    for name, array in found[0].arrays.items():
        np.testing.assert_array_equal(array, found[1].arrays[name])


def test_the_picture_shows_each_kind_for_the_same_labels(
    toy: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(judge, "MIN_STEPS", 1)
    subject = linear(toy, cache=tmp_path)
    result = compute("expost", subject)
    assert list(result.arrays) == ["inputs", "reconstructions", "prior", "gaussian", "mixture"]
    assert {array.shape for array in result.arrays.values()} == {(10, 1, 8, 8)}
    places = [
        int((toy.test_x == torch.from_numpy(x)).flatten(1).all(dim=1).nonzero()[0, 0]) for x in result.arrays["inputs"]
    ]
    y = toy.test_y[places]
    assert y.tolist() == sorted(y.tolist())
    rebuilt = (subject.model.reconstruct(toy.test_x[places], y).clamp(0, 1) * 255).round()
    np.testing.assert_array_equal(result.arrays["reconstructions"], rebuilt)
    assert list(result.images) == ["expost"]


def test_without_finite_latents_there_is_nothing_and_small_images_have_pictures_only(toy: ImageData):
    stack = new_stack(toy, tiny_config())
    with torch.no_grad():
        dict(stack.parameters)["encoder.net.layers.0.bias"].fill_(math.nan)
    result = compute("expost", subject_of(stack, toy))
    assert (result.values, result.arrays) == ({}, {})
    tiny = make_data(image_shape=(1, 2, 2))
    result = compute("expost", subject_of(new_stack(tiny, tiny_config()), tiny))
    assert list(result.values) == ["expost_components"]
    assert len(result.arrays) == 5


def test_latents_that_are_all_the_same_can_be_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A dead encoder: mu = 0 for every image."""
    monkeypatch.setattr(judge, "MIN_STEPS", 1)
    data = make_data(n_train=400)
    stack = new_stack(data, tiny_config())
    with torch.no_grad():
        for parameter in dict(stack.model.named_parameters()).values():
            parameter.zero_()
    values = compute("expost", dataclasses.replace(subject_of(stack, data), cache=tmp_path)).values
    assert all(math.isfinite(values[name]) for name in COLUMNS)
