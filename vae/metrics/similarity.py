"""How alike held-out images and their reconstructions are, by the two measures of image compression."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vae.metrics.registry import Family, Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 100
WINDOW, SIGMA = 11, 1.5  # pixels
K1, K2 = 0.01, 0.03

similarity = Family("similarity", version=1)


@similarity.computes(
    Metric(
        "test_psnr",
        "dB",
        "peak signal-to-noise ratio of reconstructions from z = mu, clipped to [0, 1]; mean over held-out images",
        "higher",
        "PSNR (dB)",
    )
)
def psnr(subject: Subject) -> float:
    errors = [(x - x_hat).double().square().mean(dim=(1, 2, 3)) for x, x_hat in pairs(subject)]  # (B,) each
    values = [-10 * math.log10(max(e, 1e-10)) for batch in errors for e in batch.tolist()]  # an exact copy has 100 dB
    return sum(values) / len(values)


@similarity.computes(
    Metric(
        "test_ssim",
        "",
        "structural similarity of reconstructions from z = mu, clipped to [0, 1] (Wang et al. 2004)",
        "higher",
        "SSIM",
    )
)
def ssim(subject: Subject) -> float:
    values = [v for x, x_hat in pairs(subject) for v in structural_similarity(x, x_hat).tolist()]
    return sum(values) / len(values)


def pairs(subject: Subject) -> Iterator[tuple[Tensor, Tensor]]:
    """Held-out images and their reconstructions from z = mu, (B, C, H, W) in [0, 1] each."""
    images, labels = subject.images("test")
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        yield x.float() / 255, subject.model.reconstruct(x, y).clamp(0, 1)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of images in [0, 1] (Wang et al. 2004, equation 13): (B, C, H, W), (B, C, H, W) -> (B,).

    Local moments are weighted with a Gaussian window of 11x11 pixels and standard deviation 1.5; only windows that lie
    inside the image count. In a smaller image the window is the largest odd one that fits.
    """
    down, across = (_windows(side) for side in a.shape[2:])  # (H', H), (W', W)
    a, b = a.double(), b.double()
    mean_a, mean_b, aa, bb, ab = (down @ image @ across.T for image in (a, b, a * a, b * b, a * b))  # (B, C, H', W')
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    variances = aa - mean_a.square() + bb - mean_b.square()
    structure = (2 * (ab - mean_a * mean_b) + c2) / (variances + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _windows(side: int) -> Tensor:
    """The weights of all windows that fit into a row of this many pixels: (windows, side)."""
    import torch

    size = min(WINDOW, side - 1 + side % 2)
    weights = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / SIGMA).square())
    windows = torch.zeros(side - size + 1, side, dtype=torch.float64)
    for i, row in enumerate(windows):
        row[i : i + size] = weights / weights.sum()
    return windows
