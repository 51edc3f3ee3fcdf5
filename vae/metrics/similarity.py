"""How alike held-out images and their reconstructions are, by the two measures of image compression."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vae.metrics.registry import Family, Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 1000
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
        "structural similarity of the same images (Wang et al. 2004), mean over windows, channels and images",
        "higher",
        "SSIM",
    )
)
def ssim(subject: Subject) -> float:
    values = [v for x, x_hat in pairs(subject) for v in structural_similarity(x, x_hat).tolist()]
    return sum(values) / len(values)


def pairs(subject: Subject) -> list[tuple[Tensor, Tensor]]:
    """Held-out images and their reconstructions, (B, C, H, W) in [0, 1] each."""
    x, y = subject.data.test_x, subject.data.test_y
    return [
        (images.float() / 255, subject.model.reconstruct(images, labels).clamp(0, 1))
        for images, labels in zip(x.split(BATCH), y.split(BATCH), strict=True)
    ]


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of images in [0, 1] (Wang et al. 2004, equation 13): (B, C, H, W), (B, C, H, W) -> (B,).

    Local moments are weighted with a Gaussian window of 11x11 pixels and standard deviation 1.5; only windows that lie
    inside the image count. In a smaller image the window is the largest odd one that fits.
    """
    import torch
    from torch.nn import functional as F

    height, width = a.shape[2:]
    kernels = []
    for side in (height, width):
        size = min(WINDOW, side - 1 + side % 2)
        weights = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / SIGMA).square())
        kernels.append(weights / weights.sum())
    window = (kernels[0][:, None] * kernels[1])[None, None]  # (1, 1, h, w)
    n_images, n_channels = a.shape[:2]
    a, b = (images.double().reshape(-1, 1, height, width) for images in (a, b))  # (B·C, 1, H, W) each
    mean_a, mean_b, aa, bb, ab = (F.conv2d(image, window) for image in (a, b, a * a, b * b, a * b))
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    variances = aa - mean_a.square() + bb - mean_b.square()
    structure = (2 * (ab - mean_a * mean_b) + c2) / (variances + c2)
    return (luminance * structure).mean(dim=(1, 2, 3)).reshape(n_images, n_channels).mean(dim=1)
