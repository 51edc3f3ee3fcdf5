"""Errors and KL against plain loops over images, and the baselines."""

import math

import pytest
import torch

from tests.conftest import make_data, tiny_config
from tests.models import new_stack, subject_of
from vae.data import ImageData, facts
from vae.data.images import split_validation
from vae.metrics import compute
from vae.metrics.reconstruction import errors


@pytest.mark.parametrize("kind", ["mlp", "linear", "conv"])
def test_the_columns_are_those_of_a_plain_loop(toy: ImageData, kind: str):
    config = tiny_config(model__kind=kind, x_var__value=0.3, beta__value=0.7)
    config.model.hidden = [16] if kind == "mlp" else None
    config.model.channels = [4, 6] if kind == "conv" else None
    config.model.activation = None if kind == "linear" else "relu"
    subject = subject_of(new_stack(toy, config), toy, known=facts(toy))
    values = compute("reconstruction", subject).values
    kl, sse_mean, mus = [0.0] * 4, 0.0, []
    for x, y in zip(toy.test_x, toy.test_y, strict=True):
        mu, logvar = (v[0].tolist() for v in subject.model.encode(x[None], y[None]))
        kl = [k + (m * m + math.exp(v) - 1 - v) / 2 / 60 for k, m, v in zip(kl, mu, logvar, strict=True)]
        x_hat = subject.model.decode(torch.tensor([mu]), y[None])[0]
        sse_mean += (x_hat - x / 255).square().sum().item() / 60
        mus.append(mu)
    assert values["test_kl_per_dim"] == pytest.approx(kl, rel=1e-4, abs=1e-7)
    assert values["test_kl"] == pytest.approx(sum(kl), rel=1e-4)
    assert values["test_sse_mean"] == pytest.approx(sse_mean, rel=1e-5)
    variances = torch.tensor(mus).var(dim=0, correction=0)
    assert values["test_active_units"] == int((variances > 0.01).sum())
    sse = values["test_sse"]
    expected = sse / 0.6 + 32 * math.log(2 * math.pi * 0.3) + 0.7 * sum(kl)
    assert values["test_loss"] == pytest.approx(expected, rel=1e-5)
    assert values["test_baseline_mean"] == facts(toy).sse_mean["test"]


def test_the_error_of_a_sampled_z_is_that_of_many_samples():
    data = make_data(n_test=3000)
    subject = subject_of(new_stack(data, tiny_config()), data)
    mu, logvar = subject.model.encode(data.test_x, data.test_y)
    gen = torch.Generator().manual_seed(1)
    z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=gen)
    expected = (subject.model.decode(z, data.test_y) - data.test_x / 255).square().sum(dim=(1, 2, 3)).mean().item()
    assert errors(subject, "test").sse == pytest.approx(expected, rel=0.02)
    assert errors(subject, "test").sse != pytest.approx(errors(subject, "test").sse_mean, rel=1e-4)


def test_validation_images_have_columns_of_their_own_where_there_are_any(toy: ImageData):
    data = split_validation(toy, 0.1)
    values = compute("reconstruction", subject_of(new_stack(data, tiny_config()), data, known=facts(data))).values
    with_val = {name.removeprefix("val_") for name in values if name.startswith("val_")}
    assert with_val == {name.removeprefix("test_") for name in values if name.startswith("test_")}
    plain = compute("reconstruction", subject_of(new_stack(toy, tiny_config()), toy, known=facts(toy))).values
    assert not any(name.startswith("val_") for name in plain)


def test_per_dim_has_its_own_loss(toy: ImageData):
    config = tiny_config(objective__kind="per_dim", beta__value=0.1)
    values = compute("reconstruction", subject_of(new_stack(toy, config), toy, known=facts(toy))).values
    assert values["test_loss"] == pytest.approx(values["test_sse"] / 64 + 0.1 * values["test_kl"] / 4, rel=1e-6)
