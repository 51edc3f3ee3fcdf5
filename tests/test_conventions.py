"""The studies' columns by hand, and the likelihood against torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Normal

from vae import conventions


def test_studies_columns_by_hand():
    columns = conventions.study_columns(sse=87.8, kl=0.0, input_dim=784, z_dim=100)
    assert columns["kl_offset"] == 50.0  # study A's "theoretical minimum"
    assert columns["r_half_sse"] == pytest.approx(43.9)  # its "around 40" of a dark image
    columns = conventions.study_columns(sse=60.0, kl=8.6, input_dim=3072, z_dim=100)
    assert columns["kld_loss"] == pytest.approx(128 * 8.6 / 100)
    assert columns["r_loss"] == pytest.approx(128 * 60.0 / 3072)


def test_the_elbo_in_nats_and_bits():
    x_hat = torch.zeros(1, 4)
    log_p = Normal(x_hat, math.sqrt(0.5)).log_prob(torch.full((1, 4), 0.5)).sum().item()
    elbo = conventions.gaussian_elbo(sse=4 * 0.25, kl=1.5, x_var=0.5, input_dim=4)
    assert elbo == pytest.approx(log_p - 1.5)
    # The same image with pixels of 0 to 255 has a density 256 times lower a pixel.
    scaled = Normal(256 * x_hat, 256 * math.sqrt(0.5)).log_prob(torch.full((1, 4), 128.0)).sum().item()
    assert conventions.bits_per_dim(elbo, "density", 4) == pytest.approx(-(scaled - 1.5) / 4 / math.log(2))
    assert conventions.bits_per_dim(-4 * math.log(256), "levels", 4) == pytest.approx(8)  # all levels alike
    assert conventions.bits_per_dim(elbo, "binary", 4) is None
