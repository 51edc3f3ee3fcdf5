"""The closed form of a linear VAE: what it converges to, computed from the training images' covariance alone.

A VAE with a linear decoder is probabilistic PCA (Lucas et al. 2019, "Don't Blame the ELBO!"; Tipping & Bishop 1999).
Let l_1 >= l_2 >= ... be the eigenvalues of the 1/N covariance of the training images (pixels in [0, 1]), k = z_dim and
t the effective variance: beta·x_var under the objective `elbo`, beta·D/(2k) under `per_dim`. Up to a factor and a
constant the loss is SSE + 2t·KL, and it splits into one problem for each principal component. With loading w, posterior
mean v·c of the component's coordinate c, and posterior variance s, a component of variance l costs

    l·(1 - w·v)² + w²·s + t·(s + v²·l - 1 - ln s).

Where l > t its minimum lies at w² = l - t, v = w/l, s = t/l: the component is active, with KL ½·ln(l/t), squared error
t (z sampled) or t²/l (z = mu). Elsewhere it lies at w = v = 0, s = 1: the component has collapsed, with KL 0 and
squared error l. The k latent dimensions take the k largest components; those beyond have KL 0 and squared error l too.

Held-out images have other variances. Let m be their mean squared coordinate along a component. With the w, v and s of
the training images, an active component has E mu² = v²·m = m·(l - t)/l², hence KL ½·(s + v²·m - 1 - ln s), and squared
error m·s² + t·(1 - s) (z sampled; m·(1 - w·v)² + w²·s) or m·s² (z = mu). Any other has KL 0 and squared error m. For
m = l these are the values above.

Only the decoder must be linear: the best posterior for it is Gaussian, linear in x and of one covariance for all x, so
a freer encoder gains nothing; and that covariance is diagonal, because the loadings can be taken orthogonal.

Units throughout: KL and likelihoods in nats per image; squared errors and variances in squared pixel values. Errors are
summed over the D pixels of an image and averaged over images. `eigenvalues` may come in any order; values that are
negative by rounding count as zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")


@dataclass(frozen=True, eq=False)  # eq: a generated comparison would fail on the array
class Optimum:
    """What a linear VAE converges to, measured on its training images or on held-out ones.

    Attributes:
        kl: KL(q(z|x) || N(0, I)), nats per image.
        sse: expected squared error per image with z sampled from the posterior.
        sse_mean: squared error per image with z = mu, the posterior mean.
        active_units: number of latent dimensions that carry information, at most z_dim.
        kl_per_dim: shape (z_dim,), nats per image, descending; 0 for the collapsed dimensions.
    """

    kl: float
    sse: float
    sse_mean: float
    active_units: int
    kl_per_dim: NDArray[np.float64]


def optimum(eigenvalues: ArrayLike, t: float, z_dim: int) -> Optimum:
    """The converged linear VAE at effective variance t (Lucas et al. 2019; derived at the top of this file).

    Args:
        eigenvalues: shape (n,), of the 1/N training covariance: of the pooled within-class covariance where encoder and
            decoder are both given the label.
        t: effective variance, beta·x_var or beta·D/(2·z_dim).
        z_dim: latent dimensions; may exceed n.

    Raises:
        ValueError: if t is not finite and > 0, z_dim < 1, or the eigenvalues are not a spectrum (empty, not 1-D,
            not finite, or negative beyond rounding).
    """
    spectrum = _spectrum(eigenvalues)
    _check_positive("t", t)
    _check_z_dim(z_dim)
    coded = spectrum[:z_dim]
    active = coded[coded > t]
    q = active.size
    rest = spectrum[q:].sum()
    kl_per_dim = np.zeros(z_dim)
    kl_per_dim[:q] = 0.5 * np.log(active / t)
    return Optimum(
        kl=float(kl_per_dim.sum()),
        sse=float(q * t + rest),
        sse_mean=float((t * t / active).sum() + rest),
        active_units=q,
        kl_per_dim=kl_per_dim,
    )


def held_out(eigenvalues: ArrayLike, variances: ArrayLike, t: float, z_dim: int) -> Optimum:
    """The linear VAE of `optimum`, applied to held-out images (derived at the top of this file).

    Args:
        eigenvalues: shape (n,), of the training images, as for `optimum`.
        variances: shape (n,), `Facts.test_variances` or the same within classes: the held-out images' mean squared
            coordinates along the components of the eigenvalues, in the same order.
        t: effective variance.
        z_dim: latent dimensions.

    Raises:
        ValueError: as `optimum`, or if the variances are not n finite numbers >= 0.
    """
    _check_positive("t", t)
    kl, sse, sse_mean = _on_held_out(eigenvalues, variances, t, z_dim)
    kl_per_dim = np.zeros(z_dim)
    kl_per_dim[: kl.size] = np.sort(kl)[::-1]
    return Optimum(
        kl=float(kl.sum()),
        sse=float(sse.sum()),
        sse_mean=float(sse_mean.sum()),
        active_units=int((_spectrum(eigenvalues)[:z_dim] > t).sum()),
        kl_per_dim=kl_per_dim,
    )


def held_out_curve(
    eigenvalues: ArrayLike, variances: ArrayLike, ts: ArrayLike, z_dim: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """KL and SSE (z sampled) of `held_out` at many effective variances at once, for drawing.

    Args:
        eigenvalues, variances: shape (n,), as for `held_out`.
        ts: effective variances, any shape.
        z_dim: latent dimensions.

    Returns:
        kl in nats per image and sse in squared error per image, each of the shape of ts.

    Raises:
        ValueError: as `held_out`, for any of the ts.
    """
    _check_positive("ts", ts)
    kl, sse, _ = _on_held_out(eigenvalues, variances, np.asarray(ts, dtype=np.float64)[..., None], z_dim)
    return kl.sum(-1), sse.sum(-1)


def _on_held_out(
    eigenvalues: ArrayLike, variances: ArrayLike, t: float | NDArray[np.float64], z_dim: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Each component's KL (..., min(n, k)), SSE (..., n) and SSE at z = mu (..., n); t is a number or (..., 1)."""
    _check_z_dim(z_dim)
    spectrum, m = _spectrum(eigenvalues), np.asarray(variances, dtype=np.float64)  # (n,), (n,)
    if m.shape != spectrum.shape or not (np.isfinite(m) & (m >= 0)).all():
        raise ValueError(f"variances: must be {spectrum.size} finite numbers >= 0, one per eigenvalue")
    m = m[np.argsort(-np.asarray(eigenvalues, dtype=np.float64), kind="stable")]  # in the order of the spectrum
    raised = np.maximum(spectrum, t)  # (..., n); with t in place of a smaller l, s is 1 and all that follows holds too
    s = np.where(np.arange(spectrum.size) < z_dim, t / raised, 1.0)
    kl = 0.5 * (s - 1 - np.log(s) + m * (1 - s) / raised)
    sse_mean = m * s * s
    return kl[..., :z_dim], sse_mean + t * (1 - s), sse_mean


def distortion(eigenvalues: ArrayLike, kl: float, z_dim: int) -> float:
    """The SSE of the linear VAE that has this KL: where the rate-distortion curve of `optimum` passes.

    With m components active, KL = sum of ½·ln(l_i/t) for i <= m gives t, and m is the number for which t lies below
    l_m but not below l_(m+1): reverse water-filling (Cover & Thomas 2006, theorem 10.3.3).

    Args:
        eigenvalues: shape (n,), as for `optimum`.
        kl: nats per image.
        z_dim: latent dimensions.

    Returns:
        squared error per image, z sampled. With no variance at all it is 0.0 at any KL.

    Raises:
        ValueError: if kl is not finite and >= 0, z_dim < 1, or the eigenvalues are not a spectrum.
    """
    spectrum = _spectrum(eigenvalues)
    if not (math.isfinite(kl) and kl >= 0):
        raise ValueError(f"kl={kl}: not a finite number >= 0")
    _check_z_dim(z_dim)
    coded = spectrum[:z_dim]
    coded = coded[coded > 0]
    if not coded.size:
        return float(spectrum.sum())
    ts = np.exp((np.log(coded).cumsum() - 2 * kl) / np.arange(1, coded.size + 1))  # the t of each m
    m = int(np.argmax(ts >= np.append(coded[1:], 0.0)))
    return float((m + 1) * ts[m] + spectrum[m + 1 :].sum())


def log_likelihood(eigenvalues: ArrayLike, x_var: float, z_dim: int) -> float:
    """Mean log p(x) over the training images under the probabilistic PCA model with this x_var.

    p(x) = N(mean, C), C = W·Wᵀ + x_var·I, with the loadings W that are best at this x_var, which need not be the best
    x_var: W·Wᵀ has the eigenvalues max(l_i - x_var, 0) for i <= z_dim along the principal components (Tipping & Bishop
    1999; Bishop 2006, eqs. 12.44 and 12.45). A linear VAE trained with beta = 1 reaches it, and it equals its ELBO.

    Args:
        eigenvalues: shape (D,), all of them, zeros included.
        x_var: decoder variance.
        z_dim: latent dimensions.

    Returns:
        nats per image.

    Raises:
        ValueError: if x_var is not finite and > 0, z_dim < 1, or the eigenvalues are not a spectrum.
    """
    spectrum = _spectrum(eigenvalues)
    _check_positive("x_var", x_var)
    _check_z_dim(z_dim)
    model = np.full_like(spectrum, x_var)  # the eigenvalues of C
    model[:z_dim] = np.maximum(spectrum[:z_dim], x_var)
    return float(-0.5 * (np.log(2 * math.pi * model) + spectrum / model).sum())


def prediction(
    eigenvalues: ArrayLike,
    eigenvalues_within: ArrayLike,
    label_placement: str,
    t: float,
    z_dim: int,
    variances: ArrayLike | None = None,
    variances_within: ArrayLike | None = None,
) -> tuple[Optimum, Optimum]:
    """The closed form for a label placement, as a pair that brackets it: twice the same where it is known exactly.

    - `both`: each class is centred on its own mean, so the pooled within-class covariance takes the place of the whole.
    - `none`, and `encoder`: the unconditional optimum. The best posterior for a linear decoder that is not given the
      label does not depend on the label.
    - `decoder`: no simple form; (within-class, unconditional) bracket it as follows. On training images the loss
      SSE + 2t·KL lies between theirs, because an encoder that is given the label may ignore it, and so may the decoder.
      Hence in the rate-distortion plane the point lies between the two curves. Its KL and SSE taken alone *need not*
      lie between: the encoder pays KL for distinguishing what the decoder knows already. It may prefer to collapse, and
      then KL is lower and SSE higher than in both cases.

    Args:
        eigenvalues: shape (n,), of the 1/N covariance of the training images.
        eigenvalues_within: shape (n,), of the covariance pooled within classes, (1/N)·sum of (x - m_y)(x - m_y)ᵀ.
        label_placement: both, decoder, encoder or none.
        t: effective variance.
        z_dim: latent dimensions.
        variances: shape (n,), the held-out images' variances for `held_out`. If given, so is variances_within, and the
            pair is that of the same two models on held-out images.
        variances_within: shape (n,), the same within classes.

    Returns:
        (lower, upper): the optimum with the lower loss and the one with the higher, on training images.

    Raises:
        ValueError: as `optimum` and `held_out`, for an unknown label_placement, or if one of the variances is missing.
    """
    if (variances is None) != (variances_within is None):
        raise ValueError("variances and variances_within: give both or neither")
    if variances is None or variances_within is None:
        within = optimum(eigenvalues_within, t, z_dim)
        unconditional = optimum(eigenvalues, t, z_dim)
    else:
        within = held_out(eigenvalues_within, variances_within, t, z_dim)
        unconditional = held_out(eigenvalues, variances, t, z_dim)
    return bracket(label_placement, within, unconditional)


def bracket(label_placement: str, within: T, unconditional: T) -> tuple[T, T]:
    """Of an optimum within classes and the unconditional one, those that hold for a label placement; see `prediction`.

    Raises:
        ValueError: for an unknown label_placement.
    """
    match label_placement:
        case "both":
            return within, within
        case "decoder":
            return within, unconditional
        case "encoder" | "none":
            return unconditional, unconditional
    raise ValueError(f"label_placement={label_placement}: not one of both, decoder, encoder, none")


def _spectrum(eigenvalues: ArrayLike) -> NDArray[np.float64]:
    """The eigenvalues checked, in descending order and >= 0; shape (n,)."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"eigenvalues: must be a non-empty list, not of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("eigenvalues: must be finite")
    # A covariance accumulated in float32 has null directions off by a few 1e-6 of its largest eigenvalue.
    if values.min() < -1e-5 * max(values.max(), 0.0):
        raise ValueError(f"eigenvalues: must be >= 0, as a covariance has them; the smallest is {values.min():g}")
    return np.sort(np.maximum(values, 0.0))[::-1]


def _check_positive(name: str, value: ArrayLike) -> None:
    values = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"{name}={value}: must be finite and > 0")


def _check_z_dim(z_dim: int) -> None:
    if z_dim < 1:
        raise ValueError(f"z_dim={z_dim}: must be >= 1")
