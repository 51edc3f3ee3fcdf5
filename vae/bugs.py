"""The closed forms of a linear VAE whose code has one of the classic bugs.

A VAE with a bug usually reaches the optimum of another loss. Notation and units are those of `vae.theory`: eigenvalues
l_1 >= l_2 >= ... of the 1/N covariance of the training images (of the within-class one where encoder and decoder both
receive the label), k = z_dim, D pixels, and the effective variance t of the loss as it was meant: a·SSE + b·KL has
t = b/(2a). A component of variance l has loading w, posterior mean v·c of its coordinate c, and s = exp(logvar).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vae import theory


@dataclass(frozen=True)
class BuggyOptimum:
    """What a linear VAE with a bug converges to, per image.

    Attributes:
        kl: KL(q || N(0, I)) in nats, of the distribution q that the code really samples z from.
        sse: expected squared error with z from that distribution, summed over pixels.
        printed_kl, printed_sse: the same two as the code itself computes them.
    """

    kl: float
    sse: float
    printed_kl: float
    printed_sse: float


@dataclass(frozen=True)
class Loss:
    """The loss that was meant, and the data it meets.

    Attributes:
        eigenvalues: shape (n,), of the covariance that fits the label placement, as for `vae.theory.optimum`.
        t: effective variance of the loss without the bug.
        z_dim: latent dimensions.
        beta: weight of the KL; the bugs that average one term only have it as their only weight.
        batch_size: images per step.
        between: variance between the class means; 0 unless the decoder receives the label.
    """

    eigenvalues: ArrayLike
    t: float
    z_dim: int
    beta: float = 1.0
    batch_size: int = 128
    between: float = 0.0


def variance_as_std(loss: Loss) -> BuggyOptimum:
    """z = mu + exp(logvar)·eps: s is the variance in the KL, but the standard deviation of the noise.

    A component costs l·(1 - w·v)² + w²·s² + t·(s + v²·l - 1 - ln s). Setting the derivatives to zero gives, with
    r = sqrt(l/t), 2s² - (1 + 2r)·s + 1 = 0, an error of s·sqrt(l·t) and v²·l = (1 - s)/2. The component is active where
    this costs less than l, the collapsed solution. This can be so for l < t.
    """
    spectrum = np.sort(np.maximum(np.asarray(loss.eigenvalues, dtype=np.float64), 0.0))[::-1]  # (n,)
    coded = spectrum[: loss.z_dim]
    b = 1 + 2 * np.sqrt(coded / loss.t)
    stationary = b * b >= 8
    root = np.sqrt(np.where(stationary, b * b - 8, 0.0))
    s = 2 / (b + root)  # (b - root)/4 without its cancellation
    kl = 0.5 * (-np.log(s) - (1 - s) / 2)
    error = s * np.sqrt(coded * loss.t)
    active = stationary & (error + 2 * loss.t * kl < coded)
    sse = float(np.where(active, error, coded).sum() + spectrum[loss.z_dim :].sum())
    own = 0.5 * (s * s + (1 - s) / 2 - 1) - np.log(s)  # KL of N(mu, s²)
    return BuggyOptimum(float(own[active].sum()), sse, float(kl[active].sum()), sse)


def half_kl(loss: Loss) -> BuggyOptimum:
    """The optimum at t/2; the KL is printed as half of what it is."""
    return _correct(loss, loss.t / 2, print_kl=0.5)


def double_kl(loss: Loss) -> BuggyOptimum:
    """The optimum at 2t; the KL is printed as twice what it is."""
    return _correct(loss, 2 * loss.t, print_kl=2)


def mean_error(loss: Loss) -> BuggyOptimum:
    """SSE/D + beta·KL, hence the optimum at beta·D/2; the error is printed per pixel."""
    d = np.size(loss.eigenvalues)
    return _correct(loss, loss.beta * d / 2, print_sse=1 / d)


def mean_kl(loss: Loss) -> BuggyOptimum:
    """SSE + beta·KL/k, hence the optimum at beta/(2k); the KL is printed per latent dimension."""
    return _correct(loss, loss.beta / (2 * loss.z_dim), print_kl=1 / loss.z_dim)


def broadcast_error(loss: Loss) -> BuggyOptimum:
    """The error averaged over all pairs of an output and an image of the batch; only one in B is of the same image.

    With c = 1/B the error of a component is l·(1 - c²) + l·(c - w·v)² + w²·s: the correct problem for variances c²·l.
    Unless l > B²·t nothing is coded. A decoder that receives the label moves its output the share c from the mean image
    to the class mean. So the output is nearly the mean image, and the printed error nearly the total variance.
    """
    c = 1 / loss.batch_size
    spectrum = np.maximum(np.asarray(loss.eigenvalues, dtype=np.float64), 0.0)  # (n,)
    shrunk = theory.optimum(c * c * spectrum, loss.t, loss.z_dim)
    active = np.sort(spectrum)[::-1][: shrunk.active_units]
    gain = (active - active * (1 - c + loss.t / (c * active)) ** 2 - loss.t + (loss.t / c) ** 2 / active).sum()
    total = spectrum.sum() + loss.between
    sse = spectrum.sum() - gain + loss.between * (1 - c) ** 2
    return BuggyOptimum(shrunk.kl, float(sse), shrunk.kl, float(shrunk.sse + (1 - c * c) * total))


def no_noise(loss: Loss) -> BuggyOptimum:
    """z = mu has no optimum: mu shrinks without bound while the decoder's weights grow. This is the limit.

    The KL tends to 0, and the error with z = mu, which the code prints, to that of principal component analysis with k
    components. With z sampled from N(mu, exp(logvar)), the posterior that the KL is computed for, the error grows
    without bound.
    """
    spectrum = np.sort(np.maximum(np.asarray(loss.eigenvalues, dtype=np.float64), 0.0))[::-1]
    return BuggyOptimum(0.0, np.inf, 0.0, float(spectrum[loss.z_dim :].sum()))


def prediction(
    bug: str, eigenvalues: ArrayLike, eigenvalues_within: ArrayLike, label_placement: str, loss: Mapping[str, Any]
) -> tuple[BuggyOptimum, BuggyOptimum]:
    """The closed form of a VAE with this bug for a label placement, as the pair that `theory.prediction` explains.

    Args:
        eigenvalues, eigenvalues_within: shape (D,), as for `theory.prediction`.
        loss: the other arguments of `Loss`.

    Raises:
        ValueError: as `optimum`, or for an unknown label_placement.
    """
    between = max(0.0, float(np.sum(eigenvalues) - np.sum(eigenvalues_within)))
    within = optimum(bug, Loss(eigenvalues_within, between=between, **loss))
    return theory.bracket(label_placement, within, optimum(bug, Loss(eigenvalues, **loss)))


def _correct(loss: Loss, t: float, print_kl: float = 1.0, print_sse: float = 1.0) -> BuggyOptimum:
    """The optimum of a correct VAE at another effective variance, with the factors that its values are printed by."""
    found = theory.optimum(loss.eigenvalues, t, loss.z_dim)
    return BuggyOptimum(found.kl, found.sse, print_kl * found.kl, print_sse * found.sse)


@dataclass(frozen=True)
class Bug:
    """A bug, by how people come to write it.

    Attributes:
        optimum: its closed form.
        how: one sentence.
    """

    optimum: Callable[[Loss], BuggyOptimum]
    how: str


BUGS: dict[str, Bug] = {
    "variance_as_std": Bug(
        variance_as_std, "The encoder returns logvar, and the sampling line uses exp(logvar) instead of exp(logvar/2)."
    ),
    "half_kl": Bug(half_kl, "The KL gets its factor ½ twice, once in its formula and once in the sum of the loss."),
    "double_kl": Bug(double_kl, "The factor ½ in front of the KL is forgotten."),
    "mean_error": Bug(
        mean_error,
        "F.mse_loss is called with its default reduction, the mean, next to a KL that is summed.",
    ),
    "mean_kl": Bug(mean_kl, "torch.mean is taken over the batch and the latent dimensions in one call."),
    "broadcast_error": Bug(
        broadcast_error,
        "The output has an extra axis, (B, 1, D) against images of (B, D), and the difference becomes (B, B, D).",
    ),
    "no_noise": Bug(no_noise, "The decoder is given mu while training, as it should be only for reconstructions."),
}


def optimum(bug: str, loss: Loss) -> BuggyOptimum:
    """The closed form of a VAE with this bug, or of a correct one.

    Args:
        bug: a key of BUGS, or `correct`.

    Raises:
        ValueError: for an unknown bug, t, z_dim or a spectrum that cannot be used.
    """
    if bug != "correct" and bug not in BUGS:
        raise ValueError(f"bug={bug}: not one of correct, {', '.join(BUGS)}")
    theory.optimum(loss.eigenvalues, loss.t, loss.z_dim)  # checks
    return _correct(loss, loss.t) if bug == "correct" else BUGS[bug].optimum(loss)
