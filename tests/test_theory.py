"""The closed form against references that do not use it: trained linear VAEs, explicit densities, real MNIST."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from tests.linear_vae import CLASSES, EXACT, D, Data, LinearVAE, N, assert_agrees, between, make_data, train
from vae import theory

SEEDS = [0, 1, 2]
SAMPLED = 1e-2  # relative, for training with sampled z


# ---------------------------------------------------------------------------------------------------------------------
# the optimum


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("q", "z_dim", "beta"),
    [
        pytest.param(3, 5, 1.0, id="collapsed-units-left"),
        pytest.param(3, 5, 0.1, id="same-t-by-small-beta"),
        pytest.param(3, 5, 4.0, id="same-t-by-large-beta"),
        pytest.param(4, 2, 1.0, id="too-few-units"),
        pytest.param(4, 9, 1.0, id="more-units-than-pixels"),
        pytest.param(6, 6, 1.0, id="all-active"),
    ],
)
def test_trained_vae_lands_on_the_optimum(seed: int, q: int, z_dim: int, beta: float) -> None:
    data = make_data(seed, class_spread=0)
    t = between(data.eigenvalues, q)
    model = train(LinearVAE(data, z_dim, seed=seed), x_var=t / beta, beta=beta)
    best = theory.optimum(data.eigenvalues, t, z_dim)
    assert best.active_units == min(q, z_dim)
    assert_agrees(model, best)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("label_placement", ["both", "encoder", "none"])
def test_trained_conditional_vae_lands_on_its_prediction(seed: int, label_placement: str) -> None:
    data = make_data(seed)
    seen = data.eigenvalues_within if label_placement == "both" else data.eigenvalues
    t = between(seen, 3)
    model = train(LinearVAE(data, 5, label_placement, seed=seed), x_var=t)
    lower, upper = theory.prediction(data.eigenvalues, data.eigenvalues_within, label_placement, t, 5)
    assert lower is upper
    assert_agrees(model, lower)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("q", [2, 4])
def test_label_in_the_decoder_alone_has_a_loss_strictly_between(seed: int, q: int) -> None:
    data = make_data(seed)
    t = between(data.eigenvalues_within, q)
    model = train(LinearVAE(data, 6, "decoder", seed=seed), x_var=t)
    within, unconditional = theory.prediction(data.eigenvalues, data.eigenvalues_within, "decoder", t, 6)
    kl, sse = model.kl_per_dim().sum().item(), model.sse().item()
    loss = sse + 2 * t * kl
    assert within.sse + 2 * t * within.kl < loss < unconditional.sse + 2 * t * unconditional.kl
    # In the rate-distortion plane: above every tangent of the within-class curve, below the unconditional curve.
    ts = np.geomspace(t / 1e3, t * 1e3, 20_001)
    kl_within, sse_within = theory.held_out_curve(data.eigenvalues_within, data.eigenvalues_within, ts, 6)
    assert np.all(sse + 2 * ts * kl > sse_within + 2 * ts * kl_within)
    kl_whole, sse_whole = theory.held_out_curve(data.eigenvalues, data.eigenvalues, ts, 6)
    assert sse < np.interp(kl, kl_whole[::-1], sse_whole[::-1])


def test_label_in_the_decoder_alone_can_have_kl_and_sse_outside() -> None:
    """One pixel, variance 2 within classes and 20/3 more between: to code it costs more KL than it is worth, though the
    pixel is active in both of the cases that bracket it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), N // CLASSES)
    noise = rng.standard_normal((N // CLASSES, 1))
    noise = np.tile((noise - noise.mean()) / noise.std() * math.sqrt(2), (CLASSES, 1))
    x = noise + np.array([-math.sqrt(10), 0, math.sqrt(10)])[labels][:, None]
    within, unconditional = theory.prediction([2 + 20 / 3], [2], "decoder", 1.0, 1)
    model = train(LinearVAE(Data(x, labels), 1, "decoder"), x_var=1.0)
    assert model.kl_per_dim().sum().item() == pytest.approx(0, abs=1e-6)
    assert model.sse().item() == pytest.approx(2, rel=EXACT)
    assert 0 < within.kl < unconditional.kl
    assert within.sse == unconditional.sse == 1
    assert within.sse + 2 * within.kl < 2 < unconditional.sse + 2 * unconditional.kl


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_mlp_encoder_before_a_linear_decoder_lands_there_too(seed: int) -> None:
    data = make_data(seed, class_spread=0)
    t = between(data.eigenvalues, 3)
    model = train(LinearVAE(data, 4, hidden=12, seed=seed), x_var=t)
    assert_agrees(model, theory.optimum(data.eigenvalues, t, 4), tolerance=1e-3)
    assert -model.loss(1.0).item() <= theory.log_likelihood(data.eigenvalues, t, 4) + 1e-9, "nothing beats it"


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_training_with_sampled_z_lands_there(seed: int) -> None:
    data = make_data(seed, class_spread=0)
    t = between(data.eigenvalues, 3)
    model = LinearVAE(data, 4, seed=seed)
    with torch.no_grad():
        model.log_x_var.fill_(math.log(t))
    model.log_x_var.requires_grad_(False)
    steps = 1500
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(1.0, model.sse_sampled(draws=8)).backward()
        optimizer.step()
        schedule.step()
    model.requires_grad_(False)
    best = theory.optimum(data.eigenvalues, t, 4)
    # Totals only: which dimension holds how much of them is the last thing that noisy training settles.
    assert best.kl == pytest.approx(model.kl_per_dim().sum().item(), rel=SAMPLED)
    assert best.sse == pytest.approx(model.sse_sampled(draws=2000).item(), rel=SAMPLED)
    assert best.sse_mean == pytest.approx(model.sse_mean().item(), rel=SAMPLED)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_collapse_from_the_largest_eigenvalue_on(seed: int, factor: float) -> None:
    data = make_data(seed, class_spread=0)
    critical = data.eigenvalues[0]
    best = theory.optimum(data.eigenvalues, critical * factor, 4)
    total = data.x.var(0).sum()
    assert (best.kl, best.active_units) == (0.0, 0)
    assert [best.sse, best.sse_mean] == pytest.approx([total, total])
    assert theory.optimum(data.eigenvalues, critical * 0.999, 4).active_units == 1
    if factor > 1:  # at the critical value itself training takes for ever
        assert_agrees(train(LinearVAE(data, 4, seed=seed), x_var=critical * factor), best)


def test_by_hand() -> None:
    best = theory.optimum([0.5, 4.0, 1.0, 2.0], t=1.0, z_dim=3)  # any order; l = t is not active
    assert best.kl_per_dim == pytest.approx([0.5 * math.log(4), 0.5 * math.log(2), 0.0])
    assert best.kl == pytest.approx(0.5 * math.log(8))
    assert best.sse == 1 + 1 + 1 + 0.5
    assert best.sse_mean == 1 / 4 + 1 / 2 + 1 + 0.5
    assert best.active_units == 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("z_dim", [1, 4, 12])
def test_curve_is_the_optimum_at_each_t(seed: int, z_dim: int) -> None:
    eigenvalues = make_data(seed).eigenvalues
    ts = np.geomspace(1e-3, 10, 40).reshape(8, 5)
    kl, sse = theory.held_out_curve(eigenvalues, eigenvalues, ts, z_dim)  # on the training images themselves
    points = [theory.optimum(eigenvalues, t, z_dim) for t in ts.flat]
    assert kl.shape == sse.shape == ts.shape
    assert kl.ravel() == pytest.approx([p.kl for p in points])
    assert sse.ravel() == pytest.approx([p.sse for p in points])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("z_dim", [1, 4, 12])
def test_distortion_is_the_sse_of_the_optimum_of_that_kl(seed: int, z_dim: int) -> None:
    eigenvalues = make_data(seed).eigenvalues
    for t in [*np.geomspace(1e-9, 10, 40), *eigenvalues]:
        point = theory.optimum(eigenvalues, t, z_dim)
        assert theory.distortion(eigenvalues, point.kl, z_dim) == pytest.approx(point.sse, rel=1e-9)


def test_distortion_by_hand() -> None:
    assert theory.distortion([4.0, 1.0, 0.25], 0.5 * math.log(4), 2) == pytest.approx(1 + 1 + 0.25)  # t = 1
    assert theory.distortion([4.0, 1.0, 0.25], 0.5 * math.log(16), 2) == pytest.approx(0.5 + 0.5 + 0.25)  # t = 1/2
    assert theory.distortion([4.0, 1.0, 0.25], 0.5 * math.log(16), 1) == pytest.approx(0.25 + 1 + 0.25)  # t = 1/4
    assert theory.distortion([1.0, 4.0, 0.25], 0.0, 2) == pytest.approx(5.25)
    assert theory.distortion([2.0, 0.0, 0.0], 0.5 * math.log(2), 3) == pytest.approx(1.0)
    assert theory.distortion([0.0, 0.0], 1.0, 2) == 0.0


@pytest.mark.parametrize("kl", [-0.1, math.nan, math.inf])
def test_distortion_at_no_kl_is_refused(kl: float) -> None:
    with pytest.raises(ValueError, match="kl="):
        theory.distortion([1.0], kl, 1)


# ---------------------------------------------------------------------------------------------------------------------
# likelihood


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("z_dim", [1, 3, 6, 9])
@pytest.mark.parametrize("x_var", [0.02, 0.3, 3.0])
def test_log_likelihood_is_that_of_the_explicit_gaussian(seed: int, z_dim: int, x_var: float) -> None:
    x = make_data(seed).x
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    top = slice(max(D - z_dim, 0), None)
    loadings = vectors[:, top] * np.sqrt(np.maximum(values[top] - x_var, 0))
    covariance = loadings @ loadings.T + x_var * np.eye(D)
    reference = multivariate_normal.logpdf(x, mean=x.mean(0), cov=covariance).mean()  # pyright: ignore[reportArgumentType]
    assert theory.log_likelihood(values, x_var, z_dim) == pytest.approx(reference, rel=1e-9)
    best = theory.optimum(values, x_var, z_dim)  # the posterior is exact, so the ELBO equals the likelihood
    elbo = -(best.sse / (2 * x_var) + D / 2 * math.log(2 * math.pi * x_var) + best.kl)
    assert theory.log_likelihood(values, x_var, z_dim) == pytest.approx(elbo, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_elbo_of_a_trained_vae_is_the_exact_likelihood(seed: int) -> None:
    """Three ways to one number: the trained loss, the density of the trained decoder, the closed form."""
    data, z_dim = make_data(seed, class_spread=0), 4
    x_var = between(data.eigenvalues, 2)
    model = train(LinearVAE(data, z_dim, seed=seed), x_var=x_var)
    loadings = model.loadings.numpy()
    density = torch.distributions.MultivariateNormal(
        model.offsets[0], torch.tensor(loadings @ loadings.T + x_var * np.eye(D))
    )
    closed = theory.log_likelihood(data.eigenvalues, x_var, z_dim)
    assert closed == pytest.approx(-model.loss(1.0).item(), rel=1e-6)
    assert closed == pytest.approx(density.log_prob(model.x).mean().item(), rel=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# errors


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_variance_that_is_not_positive_is_refused(bad: float) -> None:
    for call in (
        lambda: theory.optimum([1.0], bad, 1),
        lambda: theory.held_out([1.0], [1.0], bad, 1),
        lambda: theory.held_out_curve([1.0], [1.0], [1.0, bad], 1),
        lambda: theory.log_likelihood([1.0], bad, 1),
    ):
        with pytest.raises(ValueError, match=r"^(t|ts|x_var)=.*finite and > 0"):
            call()


@pytest.mark.parametrize("bad", [[], [1.0], [1.0, -0.1], [1.0, math.nan], [[1.0, 1.0]]])
def test_variances_that_are_not_one_per_eigenvalue_are_refused(bad: list) -> None:
    for call in (
        lambda: theory.held_out([2.0, 1.0], bad, 1.0, 1),
        lambda: theory.held_out_curve([2.0, 1.0], bad, [1.0], 1),
        lambda: theory.prediction([2.0, 1.0], [2.0, 1.0], "none", 1.0, 1, bad, [1.0, 1.0]),
    ):
        with pytest.raises(ValueError, match="variances: must be 2 finite numbers"):
            call()


@pytest.mark.parametrize("bad", [[], [1.0, -0.1], [-1.0], [1.0, math.nan], [math.inf], [[1.0]], 1.0])
def test_no_spectrum_is_refused(bad: list) -> None:
    calls = [
        lambda: theory.optimum(bad, 1.0, 1),
        lambda: theory.held_out(bad, [1.0], 1.0, 1),
        lambda: theory.distortion(bad, 1.0, 1),
        lambda: theory.log_likelihood(bad, 1.0, 1),
        lambda: theory.prediction(bad, [1.0], "none", 1.0, 1),
        lambda: theory.prediction([1.0], bad, "both", 1.0, 1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="eigenvalues"):
            call()


def test_other_bad_arguments_are_refused() -> None:
    calls = [
        lambda: theory.optimum([1.0], 1.0, 0),
        lambda: theory.held_out([1.0], [1.0], 1.0, 0),
        lambda: theory.distortion([1.0], 1.0, 0),
        lambda: theory.log_likelihood([1.0], 1.0, 0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="z_dim=0"):
            call()
    with pytest.raises(ValueError, match="label_placement=decoders"):
        theory.prediction([1.0], [1.0], "decoders", 1.0, 1)
    with pytest.raises(ValueError, match="give both or neither"):
        theory.prediction([1.0], [1.0], "none", 1.0, 1, variances=[1.0])


def test_negative_by_rounding_counts_as_zero() -> None:
    best = theory.optimum([2.0, -1e-8, 0.0], 1e-3, 3)
    assert best.active_units == 1
    assert best.sse == 1e-3
    assert np.isfinite(theory.log_likelihood([2.0, -1e-8], 0.1, 2))


# ---------------------------------------------------------------------------------------------------------------------
# real MNIST


def read_idx(path: Path) -> np.ndarray:
    """An idx file: two zero bytes, type, number of axes, big-endian sizes, then unsigned bytes."""
    raw = path.read_bytes()
    axes = raw[3]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(raw, ">i4", axes, offset=4))


@pytest.fixture(scope="module")
def mnist() -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues of the whole and of the within-class covariance of the training images, and the mean of |x|²."""
    root = os.environ.get("VAE_MNIST_ROOT")
    if root is None:
        pytest.skip("VAE_MNIST_ROOT is not set: the folder that holds MNIST/raw/train-images-idx3-ubyte")
    folder = Path(root) / "MNIST" / "raw"
    labels = read_idx(folder / "train-labels-idx1-ubyte")
    x = read_idx(folder / "train-images-idx3-ubyte").reshape(len(labels), -1).astype(np.float32) / 255
    second = np.sum([part.T @ part for part in np.array_split(x, 10)], axis=0, dtype=np.float64) / len(x)  # (784, 784)
    mean = x.mean(0, dtype=np.float64)
    class_means = np.array([x[labels == c].mean(0, dtype=np.float64) for c in range(10)])
    shares = np.bincount(labels) / len(labels)
    whole = np.linalg.eigvalsh(second - np.outer(mean, mean))
    within = np.linalg.eigvalsh(second - (class_means.T * shares) @ class_means)
    return whole, within, float(np.trace(second))


@pytest.mark.parametrize(
    ("label_placement", "t", "kl", "sse"),
    [
        ("both", 1, 2.2, 35.2),
        ("both", 0.1, 41.4, 13.6),
        ("both", 0.01, 151.1, 5.5),
        ("none", 1, 4.3, 36.8),
        ("none", 0.1, 45.1, 13.6),
        ("none", 0.01, 154.9, 5.5),
    ],
)
def test_mnist_anchors(mnist: tuple, label_placement: str, t: float, kl: float, sse: float) -> None:
    whole, within, _ = mnist
    best, _ = theory.prediction(whole, within, label_placement, t, 100)
    assert (round(best.kl, 1), round(best.sse, 1)) == (kl, sse)


def test_mnist_baselines_and_largest_eigenvalues(mnist: tuple) -> None:
    whole, within, zero_image = mnist
    assert round(zero_image, 1) == 87.8
    for eigenvalues, baseline, critical in ((whole, 52.7, 5.1), (within, 41.8, 3.1)):
        assert round(theory.optimum(eigenvalues, 10, 100).sse, 1) == baseline
        assert round(float(eigenvalues.max()), 1) == critical
