"""The probe against scikit-learn, and on latents whose class information is known."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.conftest import make_data, tiny_config
from tests.models import new_stack, subject_of
from vae.data import ImageData
from vae.metrics import Subject, compute
from vae.metrics.probe import logistic_regression
from vae.seeding import generator


def test_the_regression_is_that_of_scikit_learn():
    gen = generator(0, "test")
    y = torch.arange(300) % 4
    x = torch.randn(300, 6, generator=gen).double() + 1.5 * torch.randn(4, 6, generator=gen).double()[y]
    weight, bias = logistic_regression(x, y, 4)
    reference = LogisticRegression(tol=1e-9, max_iter=1000).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(weight.T, reference.coef_, atol=2e-3)
    ours = (x @ weight + bias).softmax(dim=1)
    np.testing.assert_allclose(ours, reference.predict_proba(x.numpy()), atol=1e-3)


def subject_with(data: ImageData, label_to_mu: float, logvar: float) -> Subject:
    """A linear encoder that ignores the image: mu is the one-hot label times a number, the variance is given."""
    config = tiny_config(model__kind="linear", model__hidden=None, model__activation=None, label_repeat__value=1)
    stack = new_stack(data, config)
    with torch.no_grad():
        parameters = dict(stack.parameters)
        parameters["encoder.net.weight"].zero_()
        parameters["encoder.net.weight"][..., :3, -3:] = label_to_mu * torch.eye(3)
        parameters["encoder.net.bias"].zero_()
        parameters["encoder.logvar"].fill_(logvar)
    return subject_of(stack, data)


@pytest.mark.parametrize(
    ("label_to_mu", "logvar", "expected"),
    [(5.0, -6.0, (1.0, 1.0)), (0.0, 0.0, (0.2, 0.47)), (0.01, 0.0, (0.2, 0.47))],
    ids=["z repeats the label", "z is noise", "the means tell the class, but the noise hides it"],
)
def test_what_z_tells_about_the_class(label_to_mu: float, logvar: float, expected: tuple[float, float], toy: ImageData):
    """Noise of 60 held-out images around the chance level of 1/3: at most two standard errors, 0.13."""
    values = compute("probe", subject_with(toy, label_to_mu, logvar)).values
    low, high = expected
    assert low <= values["probe_accuracy"] <= high
    assert values["probe_chance"] == pytest.approx(1 / 3)


def test_the_accuracy_is_that_of_the_most_probable_class(toy: ImageData):
    """For mu of the one-hot label and unit noise, the best classifier takes the largest of three values of z."""
    z = 1.5 * torch.eye(3)[torch.arange(300_000) % 3] + torch.randn(300_000, 3, generator=generator(0, "test"))
    best = (z.argmax(dim=1) == torch.arange(300_000) % 3).double().mean().item()
    data = make_data(n_train=3000, n_test=3000)
    accuracy = compute("probe", subject_with(data, 1.5, 0.0)).values["probe_accuracy"]
    assert accuracy == pytest.approx(best, abs=0.025)


def test_chance_is_the_share_of_the_most_frequent_training_class(toy: ImageData):
    train_y = torch.where(torch.arange(300) < 200, 2, toy.train_y)
    test_y = torch.where(torch.arange(60) < 15, 2, 1)
    data = dataclasses.replace(toy, train_y=train_y, test_y=test_y)
    assert compute("probe", subject_with(data, 0.0, 0.0)).values["probe_chance"] == 15 / 60


def test_without_labels_there_is_none_and_the_number_of_threads_changes_nothing(toy: ImageData):
    single = make_data(n_classes=1)
    subject = subject_of(new_stack(single, tiny_config(label_placement__kind="none")), single)
    assert compute("probe", subject).values == {}
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(compute("probe", subject_with(toy, 1.0, 0.0)).values)
    torch.set_num_threads(1)
    assert found[0] == found[1]
