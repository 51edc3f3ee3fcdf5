"""Models built to be each status, on real digits, through the numbers and scores that a run gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.result import COLUMNS
from tests.conftest import tiny_config
from tests.test_train import CPU
from vae import config, judge, linear_theory
from vae.data import Facts, ImageData, facts, load
from vae.evaluate import evaluate
from vae.judge import Judge
from vae.layers import generator
from vae.model import resolve
from vae.stack import Stack
from vae.status import BASELINE, HOLE_ACCURACY, HOLE_COVERAGE, HOLE_FFD, KL_FLOOR, KL_SHARE, status

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Decode = Callable[[Tensor, Tensor], Tensor]
Z_DIM = 20


class Constructed(nn.Module):
    """Stands for the networks of a stack of one: functions of x (1, B, D), y (1, B), z (1, B, k)."""

    def __init__(self, encode: Encode, decode: Decode) -> None:
        super().__init__()
        self.encode, self.decode = encode, decode


class Digits:
    """The dataset and what constructed models are made of."""

    def __init__(self, cache: Path) -> None:
        self.data: ImageData = load(config.Dataset())
        self.facts: Facts = facts(self.data)
        self.judge = Judge.of(self.data, cache)
        x, y = self.data.train_x.flatten(1) / 255, self.data.train_y
        self.mean = x.mean(dim=0)  # (D,)
        self.class_means = torch.stack([x[y == c].mean(dim=0) for c in range(10)])  # (10, D)
        values, vectors = torch.linalg.eigh(torch.cov((x - self.class_means[y]).T, correction=0))
        self.axes, self.variances = vectors.flip(1)[:, :Z_DIM], values.flip(0)[:Z_DIM]  # (D, k), (k,): within class

    def row(self, encode: Encode, decode: Decode, x_var: float, placement: str = "both") -> dict[str, Any]:
        """What `status` reads of the result.json of a model."""
        c = tiny_config(x_var__value=x_var, z_dim__value=Z_DIM, label_placement__kind=placement)
        data, f = self.data, self.facts
        stack = Stack([c], resolve(c, data.image_shape, 10, []), CPU)
        stack.model = Constructed(encode, decode)  # pyright: ignore[reportAttributeAccessIssue]
        numbers = evaluate(stack, data.test_x.flatten(1), data.test_y)[0]
        numbers |= {"baseline_zero": f.sse_zero["test"], "baseline_mean": f.sse_mean["test"]}
        numbers |= {"baseline_class_means": f.sse_class_means["test"]}
        theory = linear_theory.prediction(f.eigenvalues, f.eigenvalues_within, placement, x_var, Z_DIM)
        shown = self.judge.held_out
        x, y = data.test_x[shown].flatten(1)[None] / 255, data.test_y[shown][None]
        z = torch.randn(1, len(shown), Z_DIM, generator=generator(0, "sample"))
        labels = None if placement == "none" else y[0]
        row = {
            "status": "ok",
            "input_dim": stack.arch.input_dim,
            "label_repeat_decoder": stack.arch.decoder_repeat,
            "effective_x_var": x_var,
            "theory_kl_low": min(p.kl for p in theory),
            "theory_kl_high": max(p.kl for p in theory),
            **{f"test_{name}": value for name, value in numbers.items()},
            **judge.scores(self.judge, decode(z, y)[0], labels, decode(encode(x, y)[0], y)[0]),
            "judge_accuracy": self.judge.test_accuracy,
        }
        assert row.keys() <= COLUMNS.keys()
        return row

    def pca(self, x_var: float, shift: float = 0.0) -> tuple[Encode, Decode]:
        """The closed form's optimum with labels, all z moved from the origin by `shift`."""
        active = (self.variances - x_var).clamp(min=0)  # squared loadings, (k,)

        def encode(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            mu = (x - self.class_means[y]) @ self.axes * active.sqrt() / (active + x_var)
            return mu + shift, (x_var / (active + x_var)).log().expand_as(mu)

        def decode(z: Tensor, y: Tensor) -> Tensor:
            return self.class_means[y] + (z - shift) * active.sqrt() @ self.axes.T

        return encode, decode


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(tmp_path_factory.mktemp("judges"))


def prior(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros(*x.shape[:2], Z_DIM), torch.zeros(*x.shape[:2], Z_DIM)


def far_off(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return 3 * x[..., 300 : 300 + Z_DIM], torch.full((*x.shape[:2], Z_DIM), -2.0)


def constant(value: float) -> Decode:
    return lambda z, y: torch.full((*y.shape, 784), value)


# --- Constructed models


@pytest.mark.parametrize("encode", [prior, far_off])
@pytest.mark.parametrize("placement", ["both", "none"])
def test_a_dark_image_is_dead(digits: Digits, encode: Encode, placement: str):
    row = digits.row(encode, constant(0.0), 1.0, placement)
    got, reason = status(row)
    assert got == "dead"
    assert row["test_sse"] == pytest.approx(row["test_baseline_zero"], rel=1e-5)
    assert "SSE 88.8" in reason
    assert "zero image is 88.8" in reason


def test_a_constant_image_that_z_does_not_improve_is_dead(digits: Digits):
    """A wild encoder before a dead decoder: the KL is no sign of life."""
    got, reason = status(digits.row(far_off, constant(0.3), 1.0))
    assert got == "dead"
    assert "16 active units" in reason


def test_class_means_and_the_prior_are_collapsed(digits: Digits):
    row = digits.row(prior, lambda z, y: digits.class_means[y], 1.0)
    assert row["test_sse"] == pytest.approx(row["test_baseline_class_means"], rel=1e-5)
    assert status(row) == (
        "collapsed",
        "KL 0 nats in 0 active units, SSE 41.4, the class means' is 41.4; the closed form keeps KL 2.27 nats at "
        "effective x_var 1, so it is the training that failed",
    )


def test_a_collapse_that_the_closed_form_predicts_says_so(digits: Digits):
    got, reason = status(digits.row(prior, lambda z, y: digits.mean.expand(*y.shape, -1), 10.0, "none"))
    assert got == "collapsed"
    assert "SSE 53, the mean image's is 53; as the closed form has it: effective x_var 10 is not below" in reason


def test_between_the_two_largest_eigenvalues_a_decoders_label_leaves_it_open(digits: Digits):
    t = (digits.facts.eigenvalues_within[0] + digits.facts.eigenvalues[0]) / 2
    got, reason = status(digits.row(prior, lambda z, y: digits.class_means[y], t, "decoder"))
    assert got == "collapsed"
    assert "the closed form leaves it open" in reason


def test_a_decoder_that_ignores_even_the_label_is_collapsed_not_dead(digits: Digits):
    got, reason = status(digits.row(prior, lambda z, y: digits.mean.expand(*y.shape, -1), 1.0))
    assert got == "collapsed"
    assert "SSE 53, the class means' is 41.4" in reason


@pytest.mark.parametrize("x_var", [0.3, 1.0])
def test_the_closed_form_with_labels_is_ok(digits: Digits, x_var: float):
    row = digits.row(*digits.pca(x_var), x_var)
    assert row["test_kl"] == pytest.approx(row["theory_kl_low"], rel=0.05)  # it is what it is meant to be
    got, reason = status(row)
    assert got == "ok"
    assert "class seen in" in reason


def test_posteriors_far_from_the_prior_are_a_hole(digits: Digits):
    """The same codec as the good one, all posteriors moved by 6: reconstructions as before, samples from nowhere."""
    row = digits.row(*digits.pca(0.05, shift=6.0), 0.05)
    got, reason = status(row)
    assert got == "hole"
    assert row["test_sse_mean"] == pytest.approx(digits.row(*digits.pca(0.05), 0.05)["test_sse_mean"], rel=1e-4)
    assert "feature Frechet distance of samples" in reason


@pytest.mark.parametrize("contrast", [2.0, 10.0])
def test_a_decoder_that_follows_z_and_not_the_label_is_a_hole(digits: Digits, contrast: float):
    """Each z recalls the training images whose codes are near: good digits, of any class but the one asked for."""
    train_x = digits.data.train_x.flatten(1) / 255
    codes = torch.randn(len(train_x), Z_DIM, generator=generator(0, "codes"))

    def encode(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        nearest = torch.cdist(x[0], train_x).argmin(dim=1)
        return codes[nearest][None], torch.full((1, x.shape[1], Z_DIM), -6.0)

    def decode(z: Tensor, y: Tensor) -> Tensor:
        return (torch.softmax(-contrast * torch.cdist(z[0], codes).square(), dim=1) @ train_x)[None]

    row = digits.row(encode, decode, 0.01)
    assert row["sample_accuracy"] < 0.2
    assert row["sample_coverage"] > 0.9
    assert status(row)[0] == "hole"
    # Without a label nothing is asked for, and the same samples are good.
    assert status(digits.row(encode, decode, 0.01, "none"))[0] == "ok"


@pytest.mark.parametrize("decode", [constant(float("nan")), constant(float("inf"))])
def test_numbers_that_are_not_finite_are_diverged(digits: Digits, decode: Decode):
    assert status(digits.row(prior, decode, 1.0))[0] == "diverged"


def test_a_run_that_stopped_is_diverged(digits: Digits):
    row = digits.row(prior, constant(0.0), 1.0)
    assert status({**row, "status": "diverged", "diverged_epoch": 7}) == (
        "diverged",
        "the loss or a parameter stopped being finite in epoch 7",
    )


# --- Thresholds, and rows of trained runs


ROW = {  # of a run on mnist_5k: mlp, x_var 0.1, label in both, 20 epochs
    "status": "ok",
    "test_sse": 15.5,
    "test_kl": 24.5,
    "input_dim": 784,
    "test_active_units": 20,
    "test_baseline_zero": 88.8,
    "test_baseline_mean": 53.0,
    "test_baseline_class_means": 41.4,
    "theory_kl_low": 23.4,
    "theory_kl_high": 23.4,
    "effective_x_var": 0.1,
    "label_repeat_decoder": 5,
    "sample_ffd": 5.46,
    "reconstruction_ffd": 1.01,
    "real_ffd": 0.481,
    "sample_coverage": 0.668,
    "sample_accuracy": 0.862,
    "judge_accuracy": 0.972,
}
LOST = {"sample_ffd": 100.0, "sample_coverage": 0.0, "sample_accuracy": 0.0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "ok"),
        # Trained runs: sample FFD, reconstruction FFD, coverage, accuracy; what samples.png shows
        ((2.76, 1.56, 0.876, 0.98), "ok"),  # x_var 0.3: good digits
        ((2.01, 1.25, 0.90, 0.99), "ok"),  # the same after 50 epochs
        ((3.75, 0.805, 0.76, 0.92), "ok"),  # x_var 0.1, 50 epochs: good, some smeared
        ((10.3, 0.914, 0.421, 0.607), "hole"),  # x_var 0.03: smeared
        ((15.2, 0.916, 0.268, 0.481), "hole"),  # x_var 0.01: the same scribble for every class
        ((12.0, 0.672, 0.329, 0.57), "hole"),  # the same after 50 epochs
        ((25.3, 0.323, 0.174, 0.433), "hole"),  # the same with z_dim 100
        ((4.93, 5.60, 0.615, 1.0), "ok"),  # x_var 2: blurred, and so are the reconstructions
        # Either sign of bad samples, with the distance; neither without
        ({"sample_coverage": HOLE_COVERAGE - 0.01}, "hole"),
        ({"sample_accuracy": HOLE_ACCURACY * 0.972 - 0.01}, "hole"),
        ({"sample_accuracy": HOLE_ACCURACY * 0.972 + 0.01}, "ok"),
        ({"sample_ffd": HOLE_FFD * 1.01 - 0.01, "sample_coverage": 0.1}, "ok"),
        ({"sample_ffd": HOLE_FFD * 1.01 + 0.01, "sample_coverage": 0.1}, "hole"),
        ({"reconstruction_ffd": 0.01, "sample_ffd": HOLE_FFD * 0.481 - 0.01, "sample_coverage": 0.1}, "ok"),
        # Unreadable samples: a hole unless the reconstructions are blurred as well
        ({"sample_ffd": 6.0, "reconstruction_ffd": HOLE_FFD * 0.481 - 0.01, "sample_accuracy": 0.3}, "hole"),
        ({"sample_ffd": 6.0, "reconstruction_ffd": HOLE_FFD * 0.481 + 0.01, "sample_accuracy": 0.3}, "ok"),
        ({"sample_ffd": 10.5, "reconstruction_ffd": 2.5, "sample_accuracy": 0.3}, "hole"),
        # A decoder that never saw the label is not asked for a class
        ({"label_repeat_decoder": 0, "sample_accuracy": 0.1}, "ok"),
        ({"label_repeat_decoder": 0, "sample_coverage": 0.1}, "hole"),
        # Without a trained judge, or any score
        ({"judge_accuracy": None, "sample_accuracy": None}, "ok"),
        (dict.fromkeys(("sample_ffd", "reconstruction_ffd", "real_ffd", "sample_coverage", "sample_accuracy")), "ok"),
        # The posterior first: bad samples of a collapsed run are no hole
        ({**LOST, "test_kl": 0.0, "test_active_units": 0, "test_sse": 41.4}, "collapsed"),
        ({**LOST, "test_sse": 88.0}, "dead"),
        (LOST, "hole"),
        # The floor of the KL: absolute, or a share of the closed form's; and no active unit
        ({"test_kl": KL_SHARE * 23.4 - 0.01, "test_active_units": 0, "test_sse": 41.4}, "collapsed"),
        ({"test_kl": KL_SHARE * 23.4 + 0.01, "test_active_units": 0, "test_sse": 41.4}, "ok"),
        ({"test_kl": 0.01, "test_active_units": 1, "test_sse": 41.4}, "ok"),
        ({"test_kl": KL_FLOOR - 0.01, "test_active_units": 0, "test_sse": 41.4, "theory_kl_low": 0.0}, "collapsed"),
        ({"test_kl": KL_FLOOR + 0.01, "test_active_units": 0, "test_sse": 41.4, "theory_kl_low": 0.0}, "ok"),
        # The error: half way from the mean image to the zero image where z tells nothing, else the mean image's
        ({"test_kl": 0.0, "test_active_units": 0, "test_sse": 70.8}, "collapsed"),
        ({"test_kl": 0.0, "test_active_units": 0, "test_sse": 71.0}, "dead"),
        ({"test_sse": BASELINE * 53.0 - 0.1}, "ok"),
        ({"test_sse": BASELINE * 53.0 + 0.1}, "dead"),
        # Pictures so dark that the mean image is nearly the zero image: scatter does not make a run dead
        ({"test_kl": 0.0, "test_active_units": 0, "test_sse": 53.3, "test_baseline_zero": 53.1}, "collapsed"),
        ({"test_kl": None}, "diverged"),
        ({"test_sse": float("nan")}, "diverged"),
        # No answer in the range of pixels has an error above D
        ({"test_sse": 783.9}, "dead"),
        ({"test_sse": 784.1}, "diverged"),
    ],
)
def test_rows_on_either_side_of_every_threshold(changes: Any, expected: str):
    if isinstance(changes, tuple):
        names = ("sample_ffd", "reconstruction_ffd", "sample_coverage", "sample_accuracy")
        changes = dict(zip(names, changes, strict=True))
    got, reason = status({**ROW, **changes})
    assert got == expected, reason
    assert reason


def test_a_row_without_scores_says_so():
    bare = {name: value for name, value in ROW.items() if not name.startswith(("sample", "recon", "real", "judge"))}
    got, reason = status(bare)
    assert got == "ok"
    assert "not scored" in reason
