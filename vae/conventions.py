"""What SSE and KL are called elsewhere: the studies' columns, and the bound on the likelihood. Imports no torch."""

from __future__ import annotations

import math

STUDY_BATCH = 128  # the batch over which study B sums its losses
ACTIVE_VARIANCE = 0.01  # a unit is active if Var over x of its mu exceeds this (Burda et al. 2016, section 5.2)

# The KL of a unit at that threshold if its z are N(0, 1) over all x, so that its posterior variance is 1 - Var mu.
ACTIVE_KL = -0.5 * math.log(1 - ACTIVE_VARIANCE)  # nats


def study_columns(sse: float, kl: float, input_dim: float, z_dim: float) -> dict[str, float]:
    """The two studies' own columns.

    kl_offset: KL + k/2, whose minimum at k = 100 is study A's 50.0. r_half_sse: SSE/2. kld_loss and r_loss: study B's
    sums over a batch of 128, of KL/k and of SSE/D.
    """
    return {
        "kl_offset": kl + z_dim / 2,
        "r_half_sse": sse / 2,
        "kld_loss": STUDY_BATCH * kl / z_dim,
        "r_loss": STUDY_BATCH * sse / input_dim,
    }


MEASURES = {
    "density": "density of pixels in [0, 1]",
    "levels": "probability of 8-bit levels",
    "binary": "probability of black and white pixels",
}  # what a likelihood's log_prob is of


def gaussian_elbo(sse: float, kl: float, x_var: float, input_dim: int) -> float:
    """The bound on ln p(x|y) under a Gaussian decoder of variance x_var with beta = 1, in nats per image."""
    return -(sse / (2 * x_var) + 0.5 * input_dim * math.log(2 * math.pi * x_var) + kl)


def bits_per_dim(elbo: float, measure: str, input_dim: int) -> float | None:
    """The bound per pixel in bits, for 8-bit pixels; lower is better.

    A density on [0, 1] is spread over 256 levels: log2 256 = 8 bits are added (Theis et al. 2016, section 3.1).

    Args:
        elbo: nats per image.
        measure: a key of MEASURES. For `binary` and unknown measures there are no bits of 8-bit pixels: None.
    """
    bits = -elbo / (input_dim * math.log(2))
    return {"density": 8 + bits, "levels": bits}.get(measure)
