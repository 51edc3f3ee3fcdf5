"""PSNR and SSIM against slow references in numpy."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from tests.conftest import make_data, tiny_config
from tests.models import new_stack, subject_of
from vae.metrics import compute
from vae.metrics.similarity import structural_similarity


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Equations 13 to 16 of Wang et al. 2004, window by window, for one channel (H, W) of two images in [0, 1]."""
    sides = [min(11, n if n % 2 else n - 1) for n in a.shape]
    offsets = [np.arange(n) - n // 2 for n in sides]
    w = np.exp(-(offsets[0][:, None] ** 2 + offsets[1][None] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    found = []
    for i in range(a.shape[0] - sides[0] + 1):
        for j in range(a.shape[1] - sides[1] + 1):
            x, y = (image[i : i + sides[0], j : j + sides[1]] for image in (a, b))
            mx, my = (w * x).sum(), (w * y).sum()
            vx, vy, cov = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum(), (w * (x - mx) * (y - my)).sum()
            c1, c2 = 0.01**2, 0.03**2
            found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 12, 20), (1, 8, 8), (2, 11, 5), (1, 2, 2), (1, 1, 12)])
def test_ssim_is_that_of_a_slow_loop_over_windows(shape: tuple[int, int, int]):
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(4, *shape))
    b = np.clip(a + 0.2 * rng.normal(size=a.shape), 0, 1)
    got = structural_similarity(torch.from_numpy(a), torch.from_numpy(b)).tolist()
    expected = [np.mean([slow_ssim(x, y) for x, y in zip(p, q, strict=True)]) for p, q in zip(a, b, strict=True)]
    assert got == pytest.approx(expected, rel=1e-9)


def test_ssim_is_that_of_gaussian_filters_of_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=(2, 40, 40))

    def mean(image: np.ndarray) -> np.ndarray:  # truncate: a radius of 5 pixels; the border is cut off below
        return scipy.ndimage.gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 1e-4, 9e-4
    expected = np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    got = structural_similarity(*(torch.from_numpy(x)[None, None] for x in (a, b))).item()
    assert got == pytest.approx(expected, rel=1e-9)


def test_an_image_is_most_like_itself():
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert structural_similarity(x, x).tolist() == pytest.approx([1.0] * 3)
    assert structural_similarity(x, 1 - x).max() < 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12), (1, 2, 2)])
def test_the_columns_are_means_over_held_out_images(shape: tuple[int, int, int]):
    data = make_data(image_shape=shape, n_test=130)
    subject = subject_of(new_stack(data, tiny_config(z_dim__value=2)), data)
    values = compute("similarity", subject).values
    x_hat = np.clip(subject.model.reconstruct(data.test_x, data.test_y).numpy().astype(float), 0, 1)
    x = data.test_x.numpy() / 255
    psnr = np.mean([10 * math.log10(1 / np.mean((p - q) ** 2)) for p, q in zip(x, x_hat, strict=True)])
    ssim = np.mean(
        [slow_ssim(p, q) for image, guess in zip(x, x_hat, strict=True) for p, q in zip(image, guess, strict=True)]
    )
    assert values == pytest.approx({"test_psnr": psnr, "test_ssim": ssim}, rel=1e-5)
